"""What a render worker tells its guardian, over a pipe: that it is ready, what it holds, and that it is alive.

Each message is one JSON object on a line of its own. The end of the stream is a message too: the worker is dead.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

PING_INTERVAL_S = 2.0


@dataclass(frozen=True, slots=True)
class Ready:
    """The pipeline is warm. `device` is what it draws on."""

    device: str
    kind: str = field(default="ready", init=False)


@dataclass(frozen=True, slots=True)
class Holding:
    """The worker claimed this job with this fence."""

    job_id: str
    fence: int
    kind: str = field(default="holding", init=False)


@dataclass(frozen=True, slots=True)
class Step:
    """The job that is held moved on: a denoising step, or a part of publishing."""

    kind: str = field(default="step", init=False)


@dataclass(frozen=True, slots=True)
class Idle:
    """The job that was held is settled."""

    kind: str = field(default="idle", init=False)


@dataclass(frozen=True, slots=True)
class Ping:
    """The worker's interpreter runs."""

    kind: str = field(default="ping", init=False)


Message = Ready | Holding | Step | Idle | Ping


class Pulse:
    """The worker's end of the pipe. Safe to share between threads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Write one message. Raises BrokenPipeError when the guardian is gone."""
        line = json.dumps(asdict(message)).encode() + b"\n"
        with self._lock:
            os.write(self._fd, line)

    @contextmanager
    def holding(self, job_id: str, fence: int) -> Iterator[None]:
        """Have the guardian renew a job's lease for as long as the block runs.

        When the block raises, the job stays held: the process is about to end, and the guardian then gives the job back.
        """
        self.send(Holding(job_id, fence))
        yield
        self.send(Idle())

    def start_pinging(self) -> None:
        """Ping from a thread of its own. Without a guardian a worker has no reason to live: the process ends at once."""
        threading.Thread(target=self._ping_forever, name="pulse", daemon=True).start()

    def _ping_forever(self) -> None:
        pause = threading.Event()
        try:
            while not pause.wait(PING_INTERVAL_S):
                self.send(Ping())
        except BrokenPipeError:
            # Nobody renews the lease any more, and a second guardian may start a second worker on this device.
            os._exit(os.EX_UNAVAILABLE)


def parse(line: bytes) -> Message:
    """Read one line of the pipe. Raises ValueError for anything a worker of this version does not send."""
    data = json.loads(line)
    kinds: dict[str, type[Message]] = {"ready": Ready, "holding": Holding, "step": Step, "idle": Idle, "ping": Ping}
    kind = kinds.get(data.pop("kind", ""))
    if kind is None:
        raise ValueError(f"unknown message from the worker: {line!r}")
    return kind(**data)
