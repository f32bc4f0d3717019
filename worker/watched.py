"""What a guardian knows of the worker it started, from the worker's own messages, and when it must not go on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from shared.settings import Settings
from worker.pulse import Broke, Duty, Holding, Memory, Message, Ping, Publishing, Ready, Settled, Step

PUBLISH_STEP_LIMIT_S = 60.0
"""One try of an upload, or of recording the outcome, that takes longer hangs. A call to a storage that does not answer ends
by itself after some 18 s, so the limit of a denoising step may well be shorter than this."""


@dataclass
class Held:
    """A job that the worker holds with this fence. Times are `time.monotonic()` seconds."""

    job_id: str
    fence: int
    since_s: float
    moved_s: float
    renewed_s: float
    publishing: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a worker must be killed, and over which of the jobs that it holds; none: no telling which."""

    reason: str
    culprits: tuple[Held, ...] = ()


@dataclass
class Watched:
    """One worker from its start to its death. Times are `time.monotonic()` seconds.

    `proved`: it brought a job to an end, so whatever ends it later is no failing start. `excused`: it said over which job it
    ends, so the others that it holds are not to be charged for that. `held` is by job and fence.
    """

    name: str
    started_s: float
    pinged_s: float
    device: str | None = None
    proved: bool = False
    excused: bool = False
    duty: Duty = field(default_factory=lambda: Duty(0.0, 0.0))
    memory: Memory | None = None
    held: dict[tuple[str, int], Held] = field(default_factory=dict)

    def note(self, message: Message, now_s: float) -> Held | None:
        """Take in a message. Returns the job that it asks to be taken away, if it does."""
        self.pinged_s = now_s
        match message:
            case Ready(device=device):
                self.device = device
            case Holding(job_id=job_id, fence=fence):
                # Renewed at once: until then the record cannot know that anybody came to hold it.
                self.held[job_id, fence] = Held(job_id, fence, now_s, now_s, -math.inf)
            case Step(job_id=job_id, fence=fence) if (job_id, fence) in self.held:
                self.held[job_id, fence].moved_s = now_s
            case Publishing(job_id=job_id, fence=fence) if (job_id, fence) in self.held:
                held = self.held[job_id, fence]
                held.publishing, held.moved_s = True, now_s
            case Settled(job_id=job_id, fence=fence):
                self.held.pop((job_id, fence), None)
                self.proved = True
            case Broke(job_id=job_id, fence=fence, ends_worker=ends_worker):
                # A publisher that breaks in the worker's last moment does not take back what was said about its end.
                self.excused = self.excused or ends_worker
                return self.held.pop((job_id, fence), None)
            case Duty():
                self.duty = message
            case Memory():
                self.memory = message
            case Ping() | Step() | Publishing():
                pass
        return None

    def must_die(self, now_s: float, limits: Settings) -> Verdict | None:
        """Say why the worker must be killed now, if it must."""
        if self.device is None:
            if now_s - self.started_s > limits.load_limit_s:
                return Verdict(f"not ready after {limits.load_limit_s:.0f} s")
        elif now_s - self.pinged_s > limits.freeze_limit_s:
            return Verdict(f"no pulse for {limits.freeze_limit_s:.0f} s")
        for held in self.held.values():
            reason = _overdue(held, now_s, limits)
            if reason is not None:
                return Verdict(f"job {held.job_id} {reason}", (held,) if held.publishing else self._drawn())
        return None

    def _drawn(self) -> tuple[Held, ...]:
        """The jobs that are drawn now. There are several only where they are drawn together, and any may be to blame."""
        return tuple(held for held in self.held.values() if not held.publishing)


def _overdue(held: Held, now_s: float, limits: Settings) -> str | None:
    still_s = now_s - held.moved_s
    if held.publishing:
        limit_s = max(PUBLISH_STEP_LIMIT_S, limits.step_limit_s)
        return f"has hung for {limit_s:.0f} s while it was published" if still_s > limit_s else None
    if still_s > limits.step_limit_s:
        return f"made no step for {limits.step_limit_s:.0f} s"
    if now_s - held.since_s > limits.job_limit_s:
        return f"has been drawn for {limits.job_limit_s:.0f} s"
    return None
