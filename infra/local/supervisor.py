"""Runs programs that need each other: starts them in order, restarts what dies, stops them in reverse order.

Nothing here knows which programs. Everything happens in the thread that calls `start`, `run` and `stop`; only
`request_stop` may be called from elsewhere, a signal handler included.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.local.process import Process, Program, set_aside
from infra.local.run_folder import PROCESSES, write_processes
from shared.errors import GranuleError

POLL_S = 0.1
OWN_NAME = "granule"


class ProgramFailed(GranuleError):
    """A program ended or did not become ready while it was needed.

    `tail` holds its last lines of output, unless they were shown as they came.
    """

    code = "program_failed"

    def __init__(self, detail: str, *, tail: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.tail = tuple(tail)


class StopRequested(GranuleError):
    """Somebody asked for a stop."""

    code = "stop_requested"


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """When a program that died is started again.

    A life shorter than `quick_s` seconds is a quick failure. The n-th in a row is answered after
    `first_delay_s * 2 ** (n - 1)` seconds, the one numbered `give_up_after` not at all.
    """

    first_delay_s: float = 0.5
    quick_s: float = 10.0
    give_up_after: int = 5


class Supervisor:
    """Keeps a list of programs running. Usable in a `with` block, which stops them at its end.

    `folder` receives `NAME.log` of each program (the former run's becomes `NAME.log.1`) and the list of processes, and must
    belong to this supervisor alone (`run_folder.claimed`). `write_line` is called with a program's name and a line of its
    output, from several threads.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        folder: Path,
        write_line: Callable[[str, str], None],
        restart: RestartPolicy | None = None,
    ) -> None:
        self._programs = tuple(programs)
        self._folder = folder
        self._write_line = write_line
        self._restart = restart or RestartPolicy()
        self._running: dict[str, Process] = {}  # in the order of first starts
        self._quick_failures: dict[str, int] = {}
        self._restart_at_s: dict[str, float] = {}
        self._stop_requests = 0

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def request_stop(self) -> None:
        """Ask for an orderly stop; asked a second time, for one without grace."""
        self._stop_requests += 1

    def start(self) -> None:
        """Start every program in order and return when all are ready.

        Raises:
            ProgramFailed: one ended, or was not ready in time.
            StopRequested: `request_stop` was called meanwhile.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for program in self._programs:
            set_aside(self._log_file(program))
            self._spawn(program)
            if not program.background:
                self._wait_ready(program)
        for program in self._programs:
            if program.background:
                self._wait_ready(program)

    def run(self) -> None:
        """Restart what dies until a stop is requested.

        Raises:
            ProgramFailed: a program failed quickly too many times in a row.
        """
        with contextlib.suppress(StopRequested):
            while True:
                self.check()
                time.sleep(POLL_S)

    def check(self) -> None:
        """Look at every program once and restart those that are due; for callers with a loop of their own.

        Raises:
            ProgramFailed: a program failed quickly too many times in a row.
            StopRequested: `request_stop` was called.
        """
        self._break_off()
        for program in self._programs:
            process = self._running.get(program.name)
            due_s = self._restart_at_s.get(program.name)
            if due_s is not None:
                if time.monotonic() >= due_s:
                    del self._restart_at_s[program.name]
                    self._spawn(program)
            elif process is not None and process.returncode() is not None:
                self._plan_restart(process)

    def stop(self, *, at_once: bool = False) -> None:
        """Stop every program in reverse order, each with its grace, or `at_once`. Calling it again does nothing."""
        for process in reversed(self._running.values()):
            process.terminate()
            told = False
            asked_s = time.monotonic()
            while process.returncode() is None and self._stop_requests < 2 and not at_once:
                waited_s = time.monotonic() - asked_s
                if waited_s > process.program.grace_s:
                    self._write_line(OWN_NAME, f"{process.program.name} did not end within its grace; killing it")
                    break
                if waited_s > 3 and not told:
                    told = True
                    self._write_line(OWN_NAME, f"waiting for {process.program.name} to finish (Ctrl-C again: do not wait)")
                time.sleep(0.02)
            process.kill()
        self._running.clear()
        self._restart_at_s.clear()
        (self._folder / PROCESSES).unlink(missing_ok=True)

    def pid(self, name: str) -> int | None:
        """Process id of a program, or None while it is not running."""
        process = self._running.get(name)
        return process.pid if process is not None and process.returncode() is None else None

    def tail(self, name: str) -> list[str]:
        """Last lines of output of a program's present or last process."""
        return self._running[name].tail() if name in self._running else []

    def _log_file(self, program: Program) -> Path:
        return self._folder / f"{program.name}.log"

    def _spawn(self, program: Program) -> None:
        try:
            self._running[program.name] = Process(program, self._log_file(program), self._write_line)
        except OSError as error:
            raise ProgramFailed(f"{program.name} could not be started: {error}") from error
        write_processes(self._folder / PROCESSES, [process.pid for process in self._running.values()])

    def _wait_ready(self, program: Program) -> None:
        process = self._running[program.name]
        while program.ready is not None and not program.ready():
            self._break_off()
            for running in self._running.values():
                if (status := running.returncode()) is not None:
                    raise ProgramFailed(
                        f"{running.program.name} ended with status {status} before everything was ready", tail=_unseen(running)
                    )
            if process.age_s > program.ready_timeout_s:
                raise ProgramFailed(f"{program.name} was not ready after {program.ready_timeout_s:g} s", tail=_unseen(process))
            time.sleep(POLL_S)

    def _break_off(self) -> None:
        if self._stop_requests:
            raise StopRequested("a stop was requested")

    def _plan_restart(self, process: Process) -> None:
        name = process.program.name
        quick = process.age_s < self._restart.quick_s
        failures = self._quick_failures.get(name, 0) + 1 if quick else 1
        self._quick_failures[name] = failures
        process.kill()  # what it started itself must not meet its successor
        if failures >= self._restart.give_up_after:
            raise ProgramFailed(
                f"{name} ended {failures} times in a row, last with status {process.returncode()}; giving up",
                tail=_unseen(process),
            )
        delay_s = self._restart.first_delay_s * 2 ** (failures - 1)
        self._restart_at_s[name] = time.monotonic() + delay_s
        self._write_line(OWN_NAME, f"{name} ended with status {process.returncode()}; starting it again in {delay_s:g} s")


def _unseen(process: Process) -> list[str]:
    return process.tail() if process.program.quiet else []
