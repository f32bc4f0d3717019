"""The list of processes a supervisor has started, kept on disk so that the next one can end what a killed one left."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from infra.local.process import kill_group

END_TIMEOUT_S = 5.0


def write_pid_file(file: Path, pids: Iterable[int]) -> None:
    """Replace the file by the running processes among `pids`, each with its start time.

    The start time tells a process from a later one that got the same number.
    """
    entries = [{"pid": pid, "created_s": created} for pid in pids if (created := _created_s(pid)) is not None]
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps(entries))
    draft.replace(file)


def end_leftovers(file: Path) -> list[int]:
    """Kill the process groups a former supervisor left running, remove the file, and return their ids.

    Call it only while no other supervisor can be using the file.
    """
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
