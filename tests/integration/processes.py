"""Real processes for the tests: the API behind gunicorn, guardian with its worker, courier."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from infra.local.ports import free_block
from shared.queue import DELIVER_QUEUE
from shared.settings import REPOSITORY, Settings

APP = "tests.standin.tasks"


def wait_until(what: Callable[[], object], *, timeout_s: float = 30.0) -> float:
    """Return after how many seconds `what()` became true; fail the test when it does not."""
    started_s = time.monotonic()
    while not what():
        if time.monotonic() - started_s > timeout_s:
            pytest.fail(f"did not come true within {timeout_s} s")
        time.sleep(0.02)
    return time.monotonic() - started_s


@contextmanager
def api_server(settings: Settings, folder: Path, **extra: str) -> Iterator[str]:
    """Address of an API behind gunicorn that reads these settings and further variables; its log is in `folder`."""
    address = f"127.0.0.1:{free_block(1)[0]}"
    arguments = ["--config", "python:api.serving", "--workers", "1", "--bind", address]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *arguments, "api.server:create_app()"],
            env=environment(settings, **extra),
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: _is_up(f"http://{address}/healthz"))
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def environment(settings: Settings, **extra: str) -> dict[str, str]:
    """The variables that make a process read these settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GRANULE_")}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if isinstance(value, tuple):
            value = ",".join(value)
        clean[f"GRANULE_{name.upper()}"] = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
    return clean | extra


def models_in_batches(folder: Path, size: int) -> Path:
    """Put mini's manifest into a folder, but that `size` jobs are drawn together; returns the folder."""
    shutil.copy(REPOSITORY / "models" / "palette.toml", folder)
    manifest = (REPOSITORY / "models" / "rubber-tile-mini.toml").read_text(encoding="utf-8")
    (folder / "mini.toml").write_text(manifest.replace("[render]\n", f"[render]\nbatch_size = {size}\n"), encoding="utf-8")
    return folder


@dataclass
class Processes:
    """Starts processes with one set of settings, their output in `folder`, and leaves none behind."""

    settings: Settings
    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def guardian(self) -> subprocess.Popen[bytes]:
        return self._start("guardian", "-m", "worker.guardian", "--app", APP)

    def courier(self) -> subprocess.Popen[bytes]:
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return self._start(
            "courier", *["-m", "celery", "--app", APP, "worker", "-P", "threads", "-c", "4", "-Q", DELIVER_QUEUE, *quiet]
        )

    def worker_of(self, guardian: subprocess.Popen[bytes]) -> psutil.Process:
        """The render worker that a guardian runs now."""
        wait_until(lambda: psutil.Process(guardian.pid).children())
        return psutil.Process(guardian.pid).children()[0]

    def stop(self) -> None:
        orphans = []
        for process in self.started:
            for child in _children(process):
                child.kill()
                orphans.append(child)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
        # Redis would hand the next test's message to a worker that is not quite dead.
        psutil.wait_procs(orphans, timeout=5)

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}-{len(self.started)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, *arguments], env=environment(self.settings, **self.extra), stdout=log, stderr=log
            )
        self.started.append(process)
        return process


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
