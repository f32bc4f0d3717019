"""Draws several jobs in one forward of the model. Each has its own progress, picture and end; none can spoil another's."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from shared.errors import DeviceLost, GranuleError, OutOfMemory
from shared.jobs import Job
from shared.metrics import JOB_PHASE
from worker.candidates import Best
from worker.progress import CancelRequested, JobLost, Progress
from worker.publish import Drawn, answerable, settle
from worker.pulse import Duty, Publishing, Settled
from worker.station import Rendered, Station
from worker.trail import Trail

log = logging.getLogger(__name__)


class NobodyLeft(Exception):
    """Every job of the batch was called off or lost."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A job of a batch, the trail of this attempt at it, and what is told of its steps."""

    job: Job
    trail: Trail
    progress: Progress


class Batch:
    """Jobs that were claimed together just now, for one forward. Called after each denoising step; then raises NobodyLeft when
    there is no use in more.

    `rows` are the jobs that are still wanted, in their order. One that is called off or lost leaves at once: its row is drawn
    to the end with the others, for the shape of a batch is constant, and nobody looks at it.
    """

    def __init__(self, jobs: Sequence[Job], station: Station) -> None:
        self._station = station
        self._all = [Row(job, Trail(job, station.tracer), Progress(job, station, row)) for row, job in enumerate(jobs)]
        for row in self._all:
            with row.trail.span.here():
                log.info("job %s claimed, fence %d, with others", row.job.id, row.job.fence, extra={"job_id": row.job.id})
        self.rows = list(self._all)

    def draw(self) -> list[Drawn]:
        """Draw the jobs, and return the pictures of those that are still wanted.

        When that fails for a reason that is one job's, or that of so many at once, no job fails for it: all are given back and
        drawn alone. What else is raised, DeviceLost among it, means that this process can draw no more.
        """
        try:
            with self._measured():
                rendered = self._station.pipeline.render_batch([row.job.spec.render for row in self._all], self)
            return self._pictures(rendered)
        except NobodyLeft:
            return []
        except Exception as error:
            if isinstance(error, DeviceLost) or not isinstance(error, GranuleError):
                for row in self.rows:
                    row.trail.end(error)
                raise
            self._give_back(error)
            return []

    def __call__(self, step: int, steps: int) -> None:
        """Note for each job that `step` of `steps` is done."""
        for row in list(self.rows):
            try:
                row.progress(step, steps)
            except CancelRequested:
                self._leave(row, called_off=True)
            except JobLost:
                self._leave(row, called_off=False)
        if not self.rows:
            raise NobodyLeft

    def _pictures(self, rendered: Sequence[Rendered]) -> list[Drawn]:
        """Pair the pictures, one for each job that the batch began with, with the jobs that are still wanted."""
        provenance = self._station.pipeline.provenance
        pairs = zip(self._all, rendered, strict=True)
        return [
            Drawn(row.job, Best(one.pixels, one.duration_s, provenance, 1), row.progress, row.trail)
            for row, one in pairs
            if row in self.rows
        ]

    def _give_back(self, error: GranuleError) -> None:
        """Give all that are still wanted back, uncharged, and return when that is done: each is then drawn alone."""
        ids = [row.job.id for row in self.rows]
        log.warning("jobs %s could not be drawn together, and will be one by one: %s", ", ".join(ids), error)
        if isinstance(error, OutOfMemory):
            self._station.batch_size.rest()
        for row in self.rows:
            self._part_with(row, partial(_release, row.job, self._station))
        self._station.spool.wait_until_empty()

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Count what is drawn inside the block as the worker's work, and as a phase of each of the jobs."""
        duty = self._station.duty
        duty.start(max(row.job.waited_s + row.trail.pass_on() for row in self._all))
        for row in self._all:
            row.progress.span = row.trail.span.child("denoise")
        began_s = time.monotonic()
        try:
            yield
        finally:
            duty.stop()
            self._station.pulse.send(Duty(duty.busy_s, duty.starved_s))
            self._station.tell_memory()
            for row in self._all:
                row.progress.span.end()
                JOB_PHASE.labels(row.job.spec.model, "denoise").observe(time.monotonic() - began_s)

    def _leave(self, row: Row, *, called_off: bool) -> None:
        self.rows.remove(row)
        if called_off:
            self._part_with(row, partial(_let_go, row.job, self._station))
        else:
            self._part_with(row, partial(_forget, row.job))

    def _part_with(self, row: Row, last: partial[None]) -> None:
        # A Redis that is away keeps a thread of the spool waiting, not the drawing of the others.
        self._station.pulse.send(Publishing(row.job.id, row.job.fence))
        self._station.spool.put(partial(_end, row, last, self._station))


def _end(row: Row, last: partial[None], station: Station) -> None:
    """Close a job's progress, do the last thing for it, and say that it is held no more. Raises nothing."""
    try:
        with answerable(row.job, station), row.trail.span.here():
            row.progress.span.end()
            row.progress.close()
            last()
            station.pulse.send(Settled(row.job.id, row.job.fence))
    finally:
        row.trail.end()


def _let_go(job: Job, station: Station) -> None:
    settle(job, station, lambda: station.store.let_go(job.id, job.fence))


def _release(job: Job, station: Station) -> None:
    settle(job, station, lambda: station.store.release(job.id, job.fence))


def _forget(job: Job) -> None:
    log.warning("job %s was given to another worker", job.id, extra={"job_id": job.id})
