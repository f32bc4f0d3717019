"""A crew: several programs that do not need each other, one for each GPU. One that ends is started again, the others go on.

The local stack's supervisor is for programs that need each other: it stops all when one cannot run, and one after the other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infra.local.process import Process, Program

POLL_S = 0.1
FIRST_DELAY_S = 1.0
DELAY_MAX_S = 60.0
STEADY_S = 60.0
"""A life of this many seconds was no failing start: what ends it is answered as if it were the first."""


@dataclass
class Member:
    """One program of the crew. `due_s` is when it is started next, on the monotonic clock; `failures` counts quick ends."""

    program: Program
    process: Process | None = None
    due_s: float = 0.0
    failures: int = 0
    refused: bool = False
    """Its last end was EX_CONFIG: settings or weights are wrong, and it said so. Forgotten once it runs steadily."""


class Crew:
    """Runs programs until told to stop, then drains them all at once, each within its grace.

    `write_line` is called with a program's name and a line of its output, from several threads.
    """

    def __init__(self, programs: Sequence[Program], *, write_line: Callable[[str, str], None]) -> None:
        self._members = [Member(program) for program in programs]
        self._write_line = write_line
        self._stop_requests = 0

    def request_stop(self) -> None:
        """Ask for a drain; asked a second time, for an end without grace. Callable from a signal."""
        self._stop_requests += 1

    def run(self) -> int:
        """Keep the crew running until a stop is requested. Returns the exit status: EX_CONFIG when no member can work."""
        try:
            while not self._stop_requests:
                for member in self._members:
                    self._look_after(member)
                if all(member.refused for member in self._members):
                    return os.EX_CONFIG
                time.sleep(POLL_S)
            return 0
        finally:
            self._drain()

    def _look_after(self, member: Member) -> None:
        if member.process is None:
            if time.monotonic() >= member.due_s:
                self._start(member)
            return
        status = member.process.returncode()
        steady = member.process.age_s >= STEADY_S
        if status is None:
            member.refused = member.refused and not steady
            return
        member.process.kill()  # what it left behind must not meet its successor
        member.process = None
        member.failures = 1 if steady else member.failures + 1
        member.refused = status == os.EX_CONFIG
        delay_s = min(FIRST_DELAY_S * 2 ** (member.failures - 1), DELAY_MAX_S)
        member.due_s = time.monotonic() + delay_s
        self._write_line(member.program.name, f"ended with status {status}; starts again in {delay_s:g} s")

    def _start(self, member: Member) -> None:
        try:
            member.process = Process(member.program, None, self._write_line)
        except OSError as error:
            member.failures += 1
            member.due_s = time.monotonic() + DELAY_MAX_S
            self._write_line(member.program.name, f"could not be started: {error}")

    def _drain(self) -> None:
        running = [member.process for member in self._members if member.process is not None]
        for process in running:
            process.terminate()
        started_s = time.monotonic()
        while any(process.returncode() is None for process in running) and self._stop_requests < 2:
            late = [p for p in running if p.returncode() is None and time.monotonic() - started_s > p.program.grace_s]
            for process in late:
                self._write_line(process.program.name, "did not end within its grace; killing it")
                process.kill()
            time.sleep(POLL_S)
        for process in running:
            process.kill()
