"""Questions that only a process with torch can answer, asked of a process of its own.

A torch that is broken crashes, and one that is whole takes seconds to load: neither should be felt by a command that lists
jobs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from shared.errors import GranuleError

ERROR_LINES = 3


class ChildFailed(GranuleError):
    """The process ended without an answer; the detail has its last lines."""

    code = "child_failed"


def ask(module: str, arguments: Sequence[str] = (), *, timeout_s: float) -> list[dict[str, Any]]:
    """Run `python -m MODULE` and return the JSON objects that it wrote, one a line.

    Raises:
        ChildFailed: it crashed, wrote something else or nothing, or took longer than `timeout_s` seconds.
    """
    # transformers warns at import, before any code of ours runs, of image processors that are not used here.
    environ = {"TRANSFORMERS_VERBOSITY": "error", **os.environ}
    try:
        # -P: a folder called worker where the user stands must not be taken for ours.
        command = [sys.executable, "-P", "-m", module, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environ, check=False)
    except subprocess.TimeoutExpired as error:
        raise ChildFailed(f"python -m {module} gave no answer for {timeout_s:.0f} s") from error
    try:
        answers = [json.loads(line) for line in done.stdout.splitlines()]
    except ValueError as error:
        raise ChildFailed(f"python -m {module} wrote no JSON: {done.stdout[:200]}") from error
    if not answers:
        ending = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with status {done.returncode}"
        said = " ".join(" ".join(done.stderr.splitlines()[-ERROR_LINES:]).split())
        raise ChildFailed(said or f"python -m {module} {ending} and said nothing")
    return answers
