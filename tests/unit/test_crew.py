"""Workers for GPUs: which GPU is meant, and a crew that keeps its members running."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import crew as crew_module
from cli.crew import Crew
from cli.gpus import Gpu, choose_gpus, parse_list
from cli.work import plan_workers
from infra.local.process import Program
from shared.errors import SettingsInvalid
from shared.settings import Settings

LISTED = """\
GPU 0: NVIDIA H200 (UUID: GPU-8f2e3b1c-0000-4e5f-9a3b-1c2d3e4f5a6b)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-1a2b3c4d-1111-4e5f-9a3b-1c2d3e4f5a6b)
  MIG 3g.40gb     Device  0: (UUID: MIG-aaaa3c4d-2222-5e5f-9a3b-1c2d3e4f5a6b)
  MIG 2g.20gb     Device  1: (UUID: MIG-bbbb3c4d-3333-5e5f-9a3b-1c2d3e4f5a6b)
GPU 10: NVIDIA GeForce RTX 4090 (UUID: GPU-8f2eaaaa-4444-4e5f-9a3b-1c2d3e4f5a6b)
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with three GPUs, one of them divided."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return tool


def test_a_divided_gpu_counts_by_its_parts() -> None:
    assert [gpu.index for gpu in parse_list(LISTED)] == ["0", "1:0", "1:1", "10"]
    assert parse_list(LISTED)[1].name == "NVIDIA A100-SXM4-80GB MIG 3g.40gb"


@pytest.mark.usefixtures("nvidia_smi")
@pytest.mark.parametrize(
    ("wanted", "visible", "indexes"),
    [
        ("all", None, ["0", "1:0", "1:1", "10"]),
        ("all", "10,0", ["10", "0"]),
        ("10, 0", "0", ["10", "0"]),
        ("1", None, ["1:0", "1:1"]),
        ("1:1", None, ["1:1"]),
        ("GPU-8f2e3", None, ["0"]),
        ("MIG-bbbb3c4d-3333-5e5f-9a3b-1c2d3e4f5a6b,0", None, ["1:1", "0"]),
    ],
)
def test_gpus_are_named_by_index_or_uuid(wanted: str, visible: str | None, indexes: list[str]) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert [gpu.index for gpu in choose_gpus(wanted, environ)] == indexes


@pytest.mark.usefixtures("nvidia_smi")
@pytest.mark.parametrize(
    ("wanted", "visible", "told"),
    [
        ("2", None, "no GPU 2 here; there is 0 .NVIDIA H200, GPU-8f2e3b1c"),
        ("0,0", None, "GPU 0 is named twice"),
        ("GPU-8f2e", None, "start of 2 UUIDs"),
        (",", None, "all, or a list"),
        ("all", "", "hides every GPU"),
    ],
)
def test_what_cannot_be_meant_is_refused(wanted: str, visible: str | None, told: str) -> None:
    with pytest.raises(SettingsInvalid, match=told):
        choose_gpus(wanted, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})


def test_a_machine_without_gpus_is_told_what_to_do(nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    with pytest.raises(SettingsInvalid, match="nvidia-smi fails: NVIDIA-SMI has failed"):
        choose_gpus("all", {})
    monkeypatch.setenv("PATH", str(nvidia_smi.parent.parent))
    with pytest.raises(SettingsInvalid, match="install the NVIDIA driver.*worker.guardian runs one worker on the CPU"):
        choose_gpus("all", {})


def test_each_worker_sees_its_gpu_alone_and_never_falls_back_to_the_cpu() -> None:
    gpus = parse_list(LISTED)[:2]
    programs = plan_workers(gpus, Settings(grace_s=30), {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0"}, app="worker.tasks")
    assert [program.name for program in programs] == ["gpu0", "gpu1:0"]
    assert [program.env["CUDA_VISIBLE_DEVICES"] for program in programs] == [gpu.uuid for gpu in gpus]
    assert {program.env["GRANULE_DEVICE"] for program in programs} == {"cuda"}
    assert programs[0].grace_s > 30 and "GRANULE_METRICS_PORT" not in programs[0].env
    counted = plan_workers(gpus, Settings(metrics_port=9100), {}, app="worker.tasks")
    assert [program.env["GRANULE_METRICS_PORT"] for program in counted] == ["9100", "9101"]
    with pytest.raises(SettingsInvalid, match="contradicts --gpus"):
        plan_workers(gpus, Settings(device="cpu"), {}, app="worker.tasks")
    with pytest.raises(SettingsInvalid, match="contradicts --gpus"):
        plan_workers([Gpu("1", "x", "GPU-1")], Settings(device="cuda:1"), {}, app="worker.tasks")


class Run:
    """A crew in a thread of its own, as long as the test lasts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.status: int | None = None
        self.crew: Crew | None = None

    def start(self, **codes: str) -> None:
        programs = [
            Program(name=name, command=(sys.executable, "-c", code), env=dict(os.environ), cwd=self.folder, grace_s=5)
            for name, code in codes.items()
        ]
        self.crew = Crew(programs, write_line=lambda name, line: self.lines.append(f"{name}: {line}"))
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        assert self.crew is not None
        self.status = self.crew.run()

    def until(self, line: str, count: int = 1) -> None:
        deadline_s = time.monotonic() + 20
        while self.lines.count(line) < count:
            assert time.monotonic() < deadline_s, self.lines
            time.sleep(0.02)

    def stop(self) -> int | None:
        if self.crew is not None:
            self.crew.request_stop()
            self.thread.join(timeout=20)
        return self.status


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(crew_module, "FIRST_DELAY_S", 0.1)
    run = Run(tmp_path)
    yield run
    run.stop()


HOLD = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('drained', flush=True)));"
STAY = HOLD + "print('up', flush=True); time.sleep(60)"


def test_a_member_that_ends_is_started_again_and_the_others_go_on(crew: Run) -> None:
    crew.start(gpu0=STAY, gpu1="print('up', flush=True); raise SystemExit(3)")
    crew.until("gpu1: up", count=3)
    assert "gpu1: ended with status 3; starts again in 0.1 s" in crew.lines
    assert "gpu1: ended with status 3; starts again in 0.2 s" in crew.lines
    assert crew.lines.count("gpu0: up") == 1
    assert crew.stop() == 0
    assert "gpu0: drained" in crew.lines


def test_all_are_told_to_stop_at_once(crew: Run) -> None:
    slow = HOLD.replace("sys.exit(print('drained', flush=True))", "(time.sleep(1.5), sys.exit(0))")
    slow += "print('up', flush=True); time.sleep(60)"
    crew.start(gpu0=slow, gpu1=slow, gpu2=slow)
    for name in ("gpu0", "gpu1", "gpu2"):
        crew.until(f"{name}: up")
    started_s = time.monotonic()
    assert crew.stop() == 0
    assert 1.5 <= time.monotonic() - started_s < 3.5


def test_one_refused_for_its_settings_is_tried_again_but_when_all_are_it_ends(crew: Run) -> None:
    crew.start(gpu0=f"raise SystemExit({os.EX_CONFIG})", gpu1="import time; time.sleep(0.5); raise SystemExit(78)")
    crew.thread.join(timeout=20)
    assert crew.status == os.EX_CONFIG == 78


def test_a_member_that_is_killed_is_started_again(crew: Run, tmp_path: Path) -> None:
    crew.start(gpu0="import os, json; json.dump(os.getpid(), open('pid', 'w')); " + STAY)
    crew.until("gpu0: up")
    os.kill(json.loads((tmp_path / "pid").read_text()), signal.SIGKILL)
    crew.until("gpu0: up", count=2)
