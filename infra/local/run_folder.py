"""The folder that one supervisor at a time works in, with the list of processes it has started.

The list is there for the next supervisor: it ends what a killed one left running.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from infra.local.process import kill_group
from shared.errors import SettingsInvalid

PROCESSES = "processes.json"
END_TIMEOUT_S = 5.0


@contextmanager
def claimed(folder: Path) -> Iterator[list[int]]:
    """Hold the folder for this process, after ending what an earlier owner left running; gives the ids of those.

    Raises:
        SettingsInvalid: another process holds the folder, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise SettingsInvalid(f"cannot write to {folder}: {error.strerror}", field="DATA_DIR") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsInvalid(
                f"another local stack is using {folder.resolve()}: stop it, or give this one a DATA_DIR of its own",
                field="DATA_DIR",
            ) from error
        yield end_leftovers(folder / PROCESSES)


def write_processes(file: Path, pids: Iterable[int]) -> None:
    """Replace the file by the running processes among `pids`, each with its start time.

    The start time tells a process from a later one that got the same number.
    """
    entries = [{"pid": pid, "created_s": created} for pid in pids if (created := _created_s(pid)) is not None]
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps(entries))
    draft.replace(file)


def end_leftovers(file: Path) -> list[int]:
    """Kill the process groups that the file lists and that still run, remove the file, and return their ids."""
    try:
        entries = json.loads(file.read_text())
    except FileNotFoundError:
        return []
    except ValueError:  # the machine went down while it was written; nothing of it runs any more
        entries = []
    left = [entry["pid"] for entry in entries if _created_s(entry["pid"]) == entry["created_s"]]
    for pid in left:
        kill_group(pid)
    deadline = time.monotonic() + END_TIMEOUT_S
    while any(_created_s(pid) is not None for pid in left) and time.monotonic() < deadline:
        time.sleep(0.02)
    file.unlink()
    return left


def _created_s(pid: int) -> float | None:
    """Start time of a living process of ours as seconds since the epoch, or None."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or process.uids().real != os.getuid():
            return None
        return float(process.create_time())
    except psutil.Error:
        return None
