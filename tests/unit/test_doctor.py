"""What the doctor says of settings, models and machines that are wrong. Servers are in the integration tests."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from cli import child, doctor_machine, doctor_models
from cli.child import ChildFailed
from cli.doctor_local import check_brought, names_redis, names_storage, with_local_servers
from cli.doctor_machine import check_resources, check_torch
from cli.doctor_models import check_models
from cli.doctor_redis import check_redis
from cli.doctor_settings import check_settings
from cli.doctor_storage import check_storage
from cli.findings import Finding, Level
from cli.main import main
from shared.settings import REPOSITORY, Settings, variables

SECRET = "whsec_" + "A" * 32


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables():
        monkeypatch.delenv(name, raising=False)


def bad(findings: Iterable[Finding]) -> list[str]:
    """What is not in order, each with its cure."""
    return [f"{f.level}: {f.detail} -> {f.cure}" for f in findings if f.level in (Level.WARNING, Level.WRONG)]


def test_shipped_settings_are_in_order() -> None:
    assert bad(check_settings(Settings())) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"public_url": "https://tiles.example.com"}, "wrong: GRANULE_PUBLIC_URL is set without tokens"),
        ({"host": "0.0.0.0"}, "warning: the API listens on 0.0.0.0"),
        ({"public_url": "http://tiles.example.com", "api_tokens": ("shop:t",)}, "sends tokens in the clear"),
        ({"redis_url": "redis://cache.example.com/0"}, "has no password"),
        ({"s3_access_key_id": "k"}, "wrong: GRANULE_S3_SECRET_ACCESS_KEY is unset"),
        ({"step_limit_s": 10.0}, "is killed for its storage"),
        ({"job_limit_s": 60.0}, "below GRANULE_STEP_LIMIT_S"),
        ({"holds_max": 30}, "together take 38 threads"),
        ({"webhook_secret": SECRET, "webhook_secret_old": SECRET}, "unset GRANULE_WEBHOOK_SECRET_OLD"),
        ({"worker_name": "a"}, "wrong: GRANULE_PULSE_FD and GRANULE_WORKER_NAME are set"),
        ({"api_tokens_file": "/nonexistent/tokens.toml"}, "wrong: "),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict[str, object], told: str) -> None:
    [complaint] = bad(check_settings(Settings(**settings)))  # type: ignore[arg-type]
    assert told in complaint


def test_a_collector_without_the_extra_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(otel_exporter_otlp_endpoint="http://collector:4318")
    assert bad(check_settings(settings)) == []
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    [complaint] = bad(check_settings(settings))
    assert "what sends traces is not installed" in complaint


def test_a_setting_that_cannot_be_read_is_a_finding_and_not_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRANULE_LEASES_S", "3")
    monkeypatch.setenv("GRANULE_HEARTBEAT_S", "never")
    assert main(["doctor", "--quick", "--json"]) == 1
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    wrong = [finding["detail"] for finding in findings if finding["level"] == "wrong"]
    assert len(wrong) == 2
    assert "did you mean GRANULE_LEASE_S" in wrong[0] and wrong[1].startswith("GRANULE_HEARTBEAT_S: ")


def test_models_and_palette(tmp_path: Path) -> None:
    assert bad(check_models(Settings(), digests=False)) == []
    assert "no model 'acme/unknown'" in bad(check_models(Settings(model="acme/unknown"), digests=False))[0]
    assert "holds no model manifest" in bad(check_models(Settings(models_dir=tmp_path), digests=False))[0]
    for file in (REPOSITORY / "models").glob("*.toml"):
        shutil.copy(file, tmp_path)
    (tmp_path / "palette.toml").write_text("[[color]]\ncode = 'RED'\n")
    assert bad(check_models(Settings(models_dir=tmp_path), digests=False))[0].startswith("wrong: ")


def test_weights_that_only_their_owner_can_read(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "models/mini", tmp_path / "mini")
    unet = tmp_path / "mini/unet/diffusion_pytorch_model.safetensors"
    unet.chmod(0o600)
    [complaint] = bad(check_models(Settings(weights_dir=tmp_path), digests=False))
    assert f"1 files can be read by their owner only, such as {unet}" in complaint and "chmod -R a+rX" in complaint


def test_weights_are_judged_by_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(REPOSITORY / "models/mini", tmp_path / "mini")
    lora = tmp_path / "mini/rubber-tile-mini_sdxl_lora.safetensors"
    lora.write_bytes(lora.read_bytes()[:1000])
    monkeypatch.setenv("GRANULE_WEIGHTS_DIR", str(tmp_path))
    [complaint] = bad(check_models(Settings(weights_dir=tmp_path), digests=True))
    assert complaint.startswith(f"wrong: {lora} ")


def test_a_base_that_will_not_fit_while_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = {"path": "/srv/base", "refusal": None, "facts": {"sha256": "0" * 64, "parameters": 10**15}}
    monkeypatch.setattr(doctor_models, "ask", lambda *_, **__: [verdict])
    [complaint] = bad(check_models(Settings(), digests=True))
    assert complaint.startswith("warning: a worker takes about 4000001 GB while it loads")


@pytest.mark.parametrize(
    ("answer", "level", "told"),
    [
        ("No module named 'torch'", "note", "draw nothing"),
        ("libcudart.so.12: cannot open shared object file", "wrong", "cannot be loaded"),
    ],
)
def test_a_torch_that_is_not_there_is_no_fault_and_a_broken_one_is(
    answer: str, level: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ChildFailed(answer)

    monkeypatch.setattr(doctor_machine, "ask", fail)
    [finding] = check_torch(Settings())
    assert finding.level == level and told in finding.detail


@pytest.mark.parametrize(
    ("device", "cuda", "present", "told"),
    [
        ("auto", None, 2, "nvidia-smi lists 2, and torch can use none -> install the CUDA build"),
        ("auto", "13.0", 2, "nvidia-smi lists 2, and torch can use none -> the driver is too old for CUDA 13.0"),
        ("cuda:1", "13.0", 0, "GRANULE_DEVICE is cuda:1, and torch can use 0 GPUs"),
        ("cpu", None, 2, None),
    ],
)
def test_gpus_that_torch_cannot_use(
    device: str, cuda: str | None, present: int, told: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = {"torch": "2.13.0", "cuda": cuda, "threads": 2, "libraries": {"diffusers": "0.42"}, "devices": []}
    monkeypatch.setattr(doctor_machine, "ask", lambda *_, **__: [seen])
    tool = tmp_path / "nvidia-smi"
    lines = "".join(f"echo 'GPU {index}: NVIDIA H200 (UUID: GPU-{index}{index}{index}{index})'\n" for index in range(present))
    tool.write_text(f"#!/bin/sh\n{lines}")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    complaints = bad(check_torch(Settings(device=device)))
    assert (told in complaints[0]) if told else complaints == []


def test_a_child_that_crashes_is_told_by_its_signal() -> None:
    with pytest.raises(ChildFailed, match="No module named"):
        child.ask("worker.nothing", timeout_s=30)
    with pytest.raises(ChildFailed, match="gave no answer"):
        child.ask("http.server", ["0"], timeout_s=0.5)


def test_a_full_disk_and_a_folder_that_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor_machine, "DISK_WRONG_BYTES", 10**18)
    assert "make room" in bad(check_resources(Settings(data_dir=tmp_path / "new/data")))[0]


def test_servers_that_do_not_answer() -> None:
    nobody = Settings(redis_url="redis://127.0.0.1:9/0", redis_timeout_s=0.5, s3_endpoint_url="http://127.0.0.1:9")
    assert "127.0.0.1:9/0 does not answer" in bad(check_redis(nobody))[0]
    assert "REDIS_URL is no address" in bad(check_redis(Settings(redis_url="127.0.0.1:6379")))[0]
    assert "S3_ENDPOINT_URL cannot be used" in bad(check_storage(Settings(s3_endpoint_url="nowhere")))[0]


def test_without_servers_the_local_stack_could_start_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(data_dir=tmp_path)
    assert not names_redis(settings) and not names_storage(settings)
    assert with_local_servers(settings) is settings
    assert [finding.level for finding in check_brought(settings)] == [Level.NOTE, Level.NOTE]
    assert list(check_brought(Settings(redis_url="redis://h/0"))) == []
