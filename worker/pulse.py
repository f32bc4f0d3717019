"""What a render worker tells its guardian, over a pipe: that it is ready, what it holds, and that it is alive.

Each message is one JSON object on a line of its own. The end of the stream is a message too: the worker is dead. What is
said of a job names its fence too: a worker that lost a job may take it again while it still lets go of the picture it drew.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, field

PING_INTERVAL_S = 2.0


@dataclass(frozen=True, slots=True)
class Ready:
    """The pipeline is warm. `device` is what it draws on."""

    device: str
    kind: str = field(default="ready", init=False)


@dataclass(frozen=True, slots=True)
class Holding:
    """The worker claimed this job with this fence. It may hold some that it draws together and some that it publishes."""

    job_id: str
    fence: int
    kind: str = field(default="holding", init=False)


@dataclass(frozen=True, slots=True)
class Step:
    """A job that is held moved on: a denoising step, or one try of an upload or of its outcome."""

    job_id: str
    fence: int
    kind: str = field(default="step", init=False)


@dataclass(frozen=True, slots=True)
class Publishing:
    """A job that is held is drawn no more; what remains is to publish its picture, or to let go of a job that needs none."""

    job_id: str
    fence: int
    kind: str = field(default="publishing", init=False)


@dataclass(frozen=True, slots=True)
class Settled:
    """A job that was held ended, or is another worker's."""

    job_id: str
    fence: int
    kind: str = field(default="settled", init=False)


@dataclass(frozen=True, slots=True)
class Broke:
    """Something that nobody foresaw happened over a job that is held: take it away, and charge it with a crash.

    With `ends_worker` the worker ends next; the other jobs that it holds have nothing to do with that.
    """

    job_id: str
    fence: int
    ends_worker: bool
    kind: str = field(default="broke", init=False)


@dataclass(frozen=True, slots=True)
class Duty:
    """How the worker spent its time so far, in seconds: drawing, and not drawing although a job waited."""

    busy_s: float
    starved_s: float
    kind: str = field(default="duty", init=False)


@dataclass(frozen=True, slots=True)
class Memory:
    """Of the device's memory, in bytes: what is free, what there is, and the most that the worker ever took of it."""

    free_bytes: int
    total_bytes: int
    peak_bytes: int
    kind: str = field(default="memory", init=False)


@dataclass(frozen=True, slots=True)
class Ping:
    """The worker's interpreter runs."""

    kind: str = field(default="ping", init=False)


Message = Ready | Holding | Step | Publishing | Settled | Broke | Duty | Memory | Ping

KINDS: dict[str, type[Message]] = {
    "ready": Ready,
    "holding": Holding,
    "step": Step,
    "publishing": Publishing,
    "settled": Settled,
    "broke": Broke,
    "duty": Duty,
    "memory": Memory,
    "ping": Ping,
}


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
    kind = KINDS.get(data.pop("kind", ""))
    if kind is None:
        raise ValueError(f"unknown message from the worker: {line!r}")
    return kind(**data)
