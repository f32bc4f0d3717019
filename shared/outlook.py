"""What the caller of a job can expect: its place in line, when it will have ended, and whether anybody will draw it at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.jobs import Job, Status


@dataclass(frozen=True, slots=True)
class Traffic:
    """What goes on around the jobs of one model, on Redis's clock.

    `mean_ms` is the exponential mean of the times from claim to picture, None before the first; `workers` counts those that
    showed a sign of life; `begun_ms` is when each running job was begun.
    """

    now_ms: int
    mean_ms: int | None
    workers: int
    begun_ms: Sequence[int]


@dataclass(frozen=True, slots=True)
class Outlook:
    """`queue_position` is how many jobs are served before (None: it does not wait), `eta_s` the seconds to its end (None:
    unknown, or it has ended), `queue_note` a sentence when it waits and no worker serves its model."""

    queue_position: int | None = None
    eta_s: float | None = None
    queue_note: str | None = None


def outlook(job: Job, queue_position: int | None, traffic: Traffic) -> Outlook:
    """Say what to expect of a job that has not ended. Every job of a model is taken to last as long as the mean."""
    if job.status is Status.QUEUED and traffic.workers == 0:
        note = f"no worker serves {job.spec.model} now; the prediction waits, and is drawn as soon as one is ready"
        return Outlook(queue_position, None, note)
    if traffic.mean_ms is None:
        return Outlook(queue_position)
    if queue_position is None:
        return Outlook(eta_s=_seconds(_left_ms(job, traffic.mean_ms, traffic.now_ms)))
    return Outlook(queue_position, _seconds(_wait_ms(queue_position, traffic, traffic.mean_ms) + traffic.mean_ms))


def _left_ms(job: Job, mean_ms: int, now_ms: int) -> float:
    """A job that is slower than the mean is judged by the steps that it still has to do."""
    undone = 1 - min(1.0, job.step / job.spec.render.total_steps)
    elapsed_ms = now_ms - (job.started_ms or now_ms)
    return max(mean_ms - elapsed_ms, mean_ms * undone)


def _wait_ms(position: int, traffic: Traffic, mean_ms: int) -> float:
    """Time until a worker takes the job with `position` others before it.

    No running job has more than a mean left, so the workers become free in the same order round after round. A worker draws
    only the last of the jobs it has begun; it is through with the others but for publishing them.
    """
    drawn = sorted(traffic.begun_ms)[-max(1, traffic.workers) :]
    left_ms = [max(0, mean_ms - (traffic.now_ms - begun_ms)) for begun_ms in drawn]
    idle = max(0, traffic.workers - len(left_ms))
    free_ms = sorted([0] * idle + left_ms)
    rounds, turn = divmod(position, len(free_ms))
    return rounds * mean_ms + free_ms[turn]


def _seconds(ms: float) -> float:
    return round(ms / 1000, 1)
