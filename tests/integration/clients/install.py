"""Official clients that the project's own environment cannot hold, installed once into pytest's cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

INSTALL_TIMEOUT_S = 300


def installed(cache: pytest.Cache, name: str, pins: Sequence[Path], command: Callable[[Path], list[str]]) -> Path:
    """Return the folder that `command(folder)` installed what `pins` name into; they are copied there before.

    It runs once for each content of the pins; after that nothing is asked of any network. Where it cannot run, the tests
    are skipped, but under CI=true they fail.
    """
    digest = hashlib.sha256(b"\0".join(pin.read_bytes() for pin in pins)).hexdigest()[:16]
    folder = Path(cache.mkdir(name)) / digest
    if folder.is_dir():
        return folder
    # Two runs at once fill a folder each; the first to finish gives its own the name that is looked for.
    fresh = folder.with_name(f"{digest}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for pin in pins:
        shutil.copy(pin, fresh)
    run = subprocess.run(command(fresh), cwd=fresh, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    if run.returncode:
        shutil.rmtree(fresh)
        cannot(f"{name} could not be installed: {run.stderr[-500:]}")
    if not folder.is_dir():
        fresh.rename(folder)
    return folder


def cannot(reason: str) -> None:
    """Skip the test that cannot run here; under CI=true fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
