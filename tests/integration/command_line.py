"""The front door's commands as processes, with a small model, for the tests that run the whole system."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from shared.settings import REPOSITORY

START_TIMEOUT_S = 180


def write_small_models(folder: Path, checkpoint_dir: Path) -> None:
    """Write a models folder whose one model draws 256 pixels in two steps."""
    manifest = (REPOSITORY / "models/rubber-tile-mini.toml").read_text()
    for line, small in (
        ('base = "mini"', f'base = "{checkpoint_dir}"'),
        ('file = "mini/', f'file = "{checkpoint_dir}/'),
        ("width_px = 1024", "width_px = 256"),
        ("height_px = 1024", "height_px = 256"),
    ):
        assert line in manifest
        manifest = manifest.replace(line, small)
    steps = next(line for line in manifest.splitlines() if line.startswith("num_inference_steps"))
    (folder / "small.toml").write_text(manifest.replace(steps, "num_inference_steps = 2"))
    (folder / "palette.toml").write_text((REPOSITORY / "models/palette.toml").read_text())


class CommandLine:
    """Runs `granule` commands with one data folder and kills whatever is left at the end."""

    def __init__(self, folder: Path, models: Path) -> None:
        outside = {name: value for name, value in os.environ.items() if not name.startswith("GRANULE_")}
        self.env = outside | {
            "PORT": "0",
            "DATA_DIR": str(folder / "data"),
            "GRANULE_MODELS_DIR": str(models),
            "GRANULE_LEASE_S": "3",
            "GRANULE_HEARTBEAT_S": "0.5",
            "PYTHONPATH": str(REPOSITORY),
        }
        self.folder = folder
        self.started: list[psutil.Process] = []

    def start(self, command: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start a command; `shown` and `said` have what it wrote to standard output and error."""
        with (self.folder / "stdout").open("wb") as stdout, (self.folder / "stderr").open("ab") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "infra.local.cli", command],
                env=self.env | variables,
                cwd=self.folder,
                stdout=stdout,
                stderr=stderr,
            )
        self.started.append(psutil.Process(process.pid))
        return process

    def up(self, **variables: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start everything; returns the process and the API's address."""
        process = self.start("up", **variables)
        wait_for(lambda: self.shown() or process.poll() is not None, START_TIMEOUT_S)
        assert self.shown().startswith("ready http://127.0.0.1:"), self.said()
        self.started += self.started[-1].children(recursive=True)
        return process, self.shown().removeprefix("ready ").strip()

    def shown(self) -> str:
        return (self.folder / "stdout").read_text()

    def said(self) -> str:
        return (self.folder / "stderr").read_text()

    def alive(self) -> list[psutil.Process]:
        return [process for process in self.started if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def wait_for(condition: Callable[[], object], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
