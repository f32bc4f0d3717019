"""Where the time of one job goes in this worker: its phases as histograms, and as spans of its order's trace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from shared.jobs import Job
from shared.metrics import JOB_PHASE
from shared.tracing import Attributes, Span, Tracer, code_of
from worker.progress import CancelRequested, JobLost


class Trail:
    """One attempt at a job, from its claim, which was just now, until `end`.

    Its span stands below that of the request that ordered the job, beside one for the time in line; where nothing is traced
    there is none. Times are those of this machine's clock: of the time in line, only the length comes from Redis.
    """

    def __init__(self, job: Job, tracer: Tracer) -> None:
        self._job = job
        self._claimed_s = time.monotonic()
        order = tracer.resume(job.traceparent)
        about: Attributes = {"granule.job_id": job.id, "granule.model": job.spec.model, "granule.attempt": job.fence}
        JOB_PHASE.labels(job.spec.model, "queued").observe(job.waited_s)
        order.child("queued", about, began_ago_s=job.waited_s).end()
        self.span: Span = order.child("attempt", about, kind="consumer")

    def pass_on(self) -> float:
        """Note that the pipeline takes the job now. Returns the seconds since the claim."""
        claimed_s = time.monotonic() - self._claimed_s
        JOB_PHASE.labels(self._job.spec.model, "claimed").observe(claimed_s)
        self.span.child("claimed", began_ago_s=claimed_s).end()
        return claimed_s

    @contextmanager
    def phase(self, name: str) -> Iterator[Span]:
        """Time a phase of the attempt. What is raised in it marks its span as failed, unless the job was called off or lost."""
        with JOB_PHASE.labels(self._job.spec.model, name).time(), self.span.child(name) as span:
            try:
                yield span
            except (CancelRequested, JobLost):
                span.end()
                raise

    def end(self, error: BaseException | None = None) -> None:
        """End the attempt, whatever became of the job; `error` is what nobody foresaw."""
        self.span.end(None if error is None else code_of(error))
