"""One child process: how it is started, read, and ended with everything it started itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.local import leash

TAIL_LINES = 40
LOG_MAX_BYTES = 20_000_000


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run, and how to tell that it serves.

    `env` is the whole environment. `ready` is asked about ten times a second until it says True, for at most
    `ready_timeout_s`; None means ready as soon as started. The next program waits for that, unless this one is
    `background`. `grace_s` is the time between SIGTERM and SIGKILL. The output of a `quiet` program goes to its log
    file only.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    ready: Callable[[], bool] | None = None
    ready_timeout_s: float = 30.0
    background: bool = False
    grace_s: float = 10.0
    quiet: bool = False


class Process:
    """A running program in a session of its own, so that the terminal's Ctrl-C reaches the supervisor alone.

    Its output goes to `log_file`, if there is one, and line by line to `write_line`.

    Start it in a thread that lives as long as the process should: on Linux the kernel kills the child when the thread
    that started it ends, which is what leaves no orphan after `kill -9` of the supervisor.
    """

    def __init__(self, program: Program, log_file: Path | None, write_line: Callable[[str, str], None]) -> None:
        self.program = program
        self.started_s = time.monotonic()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._popen = subprocess.Popen(
            _leashed(program.command),
            env=dict(program.env),
            cwd=program.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._pump = threading.Thread(target=self._copy_output, args=(log_file, write_line), daemon=True)
        self._pump.start()

    @property
    def pid(self) -> int:
        """Process id, and id of the process group that its own children are in."""
        return self._popen.pid

    @property
    def age_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started_s

    def returncode(self) -> int | None:
        """Exit status, negative for a signal, or None while the process runs."""
        return self._popen.poll()

    def tail(self) -> list[str]:
        """The last lines of output, oldest first."""
        if self.returncode() is not None:
            self._pump.join(timeout=1)
        return list(self._tail)

    def terminate(self) -> None:
        """Ask the process to end; what it started it ends itself."""
        if self.returncode() is None:
            self._popen.terminate()

    def kill(self) -> None:
        """End the process and every process of its group now."""
        kill_group(self.pid)
        self._popen.wait()
        self._pump.join(timeout=1)

    def _copy_output(self, log_file: Path | None, write_line: Callable[[str, str], None]) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as output:
            for line in output:
                if log_file is not None:
                    # On a full disk the line is lost. Unread, the process would stop at its next one.
                    with contextlib.suppress(OSError):
                        _append(log_file, line)
                text = line.decode(errors="replace").rstrip()
                self._tail.append(text)
                if not self.program.quiet:
                    write_line(self.program.name, text)


def _append(log_file: Path, line: bytes) -> None:
    """Add to the log; a full one is put aside in place of the one before it."""
    with log_file.open("ab") as log:
        log.write(line)
        size_bytes = log.tell()
    if size_bytes > LOG_MAX_BYTES:
        set_aside(log_file)


def set_aside(log_file: Path) -> None:
    """Rename `NAME.log` to `NAME.log.1`, where it is kept until the next one is set aside."""
    if log_file.exists():
        log_file.replace(log_file.with_suffix(".log.1"))


def kill_group(pid: int) -> None:
    """Send SIGKILL to the process group that `pid` leads, if any of it is left."""
    # macOS answers EPERM for a group that holds only dead processes.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _leashed(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command in a form that dies with this process, where the system can do that."""
    if sys.platform != "linux":
        return command
    return (sys.executable, "-I", "-S", str(Path(leash.__file__)), str(os.getpid()), *command)
