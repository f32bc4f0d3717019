"""Render jobs from claim to picture. No Celery, no torch: what it needs is passed in.

The order of the steps, and what each failure means for the job, is decided here and, once the picture is drawn, in
`worker/publish.py`.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from shared.errors import DeviceLost, GranuleError, StoreUnavailable
from shared.jobs import Job
from worker.batch import Batch
from worker.candidates import draw_best
from worker.progress import CancelRequested, JobLost, Progress
from worker.publish import Drawn, fail, publish, settle
from worker.pulse import Broke, Duty, Holding, Publishing, Settled, Step
from worker.station import Station
from worker.trail import Trail

log = logging.getLogger(__name__)

TURN_S = 60.0
CLAIM_TRIES = 4
RETRY_GAP_S = 1.0
ALONE_PATIENCE_S = 5.0


class NotAlone(Exception):
    """Pictures of other jobs are still on their way, and this job must not be drawn beside them."""


class WorkerBroken(Exception):
    """This process can draw no more: its device is lost, or something happened that nobody foresaw.

    The guardian has been told, charges the job with a crash and gives it to the next worker; this process must end.
    """


def run_jobs(job_id: str, station: Station) -> None:
    """Draw what waits, beginning with the job that a message named if it still does, for about a minute.

    A message is a hint that there is something to draw. The next job is taken from the line itself as long as there is one:
    a message would have to be fetched first, while the device idles. After a minute the messages have their turn again, so
    that the connection to the broker is looked after.

    When this returns, every job that was taken ended, or its picture is on its way, or it belongs to somebody else, or (Redis
    away for longer than ten minutes) its lease will run out and the sweep gives it to the next worker. The message can be
    acknowledged in every case; a job that it named and that nobody took still waits in line.

    Raises:
        StoreUnavailable: no answer about a claim. If it was made all the same, the lease brings the job back.
        WorkerBroken: the process must end.
    """
    until_s = time.monotonic() + TURN_S
    named: str | None = job_id
    while station.spool.wait_for_place(station.is_stopping):
        jobs = _claim(named, station)
        if not jobs and named is not None:
            jobs = _claim(None, station)
        if not jobs:
            return
        named = None
        if len(jobs) == 1:
            _run_job(jobs[0], station)
        else:
            _run_batch(jobs, station)
        if time.monotonic() > until_s or station.is_stopping():
            return


def _run_job(job: Job, station: Station) -> None:
    """Draw the picture of a job that was claimed just now, and hand it to the publisher. Raises WorkerBroken."""
    station.pulse.send(Holding(job.id, job.fence))
    try:
        drawn = _attempt(job, station)
    except NotAlone:
        _give_back(job, station)
        return
    except Exception as error:
        raise _break_over([job], error, station) from error
    if drawn is None:
        station.pulse.send(Settled(job.id, job.fence))
        return
    station.pulse.send(Publishing(job.id, job.fence))
    station.spool.put(partial(publish, drawn, station))
    if _is_suspect(job):
        station.spool.wait_until_empty()


def _run_batch(jobs: list[Job], station: Station) -> None:
    """Draw the pictures of jobs that were claimed together, and hand them to the publisher. Raises WorkerBroken.

    None of them is a suspect: what was given back before is claimed alone.
    """
    for job in jobs:
        station.pulse.send(Holding(job.id, job.fence))
    try:
        batch = Batch(jobs, station)
    except Exception as error:
        raise _break_over(jobs, error, station) from error
    try:
        pictures = batch.draw()
    except Exception as error:
        raise _break_over([row.job for row in batch.rows], error, station) from error
    for drawn in pictures:
        station.pulse.send(Publishing(drawn.job.id, drawn.job.fence))
        station.spool.put(partial(publish, drawn, station))


def _break_over(jobs: Sequence[Job], error: Exception, station: Station) -> WorkerBroken:
    """Tell the guardian over which jobs this process ends."""
    for job in jobs:
        if not isinstance(error, DeviceLost):
            log.error("job %s met an unforeseen error", job.id, exc_info=error, extra={"job_id": job.id})
        station.pulse.send(Broke(job.id, job.fence, ends_worker=True))
    return WorkerBroken()


def _is_suspect(job: Job) -> bool:
    """A job that a worker died over before may be what killed it: it must not take others with it again."""
    return job.crashes > 0


def _wait_until_alone(job: Job, progress: Progress, station: Station) -> None:
    """Wait a little until no picture is left in the spool.

    Raises:
        CancelRequested, JobLost: nobody wants the job drawn here any more.
        NotAlone: it takes longer, because the storage is away: another worker may be free.
    """

    def show_life() -> None:
        station.pulse.send(Step(job.id, job.fence))
        with suppress(StoreUnavailable):
            progress.report()

    if not station.spool.wait_until_empty(show_life, timeout_s=ALONE_PATIENCE_S):
        raise NotAlone


def _give_back(job: Job, station: Station) -> None:
    """Leave a job to a worker that is alone. This one takes none before it is alone itself: it would get the same again."""
    while True:
        station.pulse.send(Step(job.id, job.fence))
        try:
            station.store.release(job.id, job.fence)
            break
        except StoreUnavailable:
            time.sleep(RETRY_GAP_S)
    log.info("job %s is left to a worker that is alone", job.id, extra={"job_id": job.id})
    station.pulse.send(Settled(job.id, job.fence))
    station.spool.wait_until_empty()


def _claim(job_id: str | None, station: Station) -> list[Job]:
    """Claim a job, or what is first in line, with one token for all tries: a claim whose reply was lost is found again."""
    token = secrets.token_hex(8)
    for _ in range(CLAIM_TRIES - 1):
        try:
            return _claim_once(job_id, token, station)
        except StoreUnavailable:
            time.sleep(RETRY_GAP_S)
    return _claim_once(job_id, token, station)


def _claim_once(job_id: str | None, token: str, station: Station) -> list[Job]:
    if job_id is None:
        return station.store.claim_batch(station.manifest.slug, worker=station.name, token=token, size=station.batch_size.now())
    job = station.store.claim(job_id, worker=station.name, delivery_token=token)
    return [] if job is None else [job]


def _attempt(job: Job, station: Station) -> Drawn | None:
    """Draw the picture. None: the job ended without one, or is another worker's. The trail ends here or goes with the picture.

    Raises NotAlone. What else is raised, DeviceLost among it, means that this process can draw no more.
    """
    trail = Trail(job, station.tracer)
    try:
        with trail.span.here():
            log.info("job %s claimed, fence %d", job.id, job.fence, extra={"job_id": job.id})
            drawn = _draw(job, station, trail)
    except Exception as error:
        trail.end(None if isinstance(error, NotAlone) else error)
        raise
    if drawn is None:
        trail.end()
    return drawn


def _draw(job: Job, station: Station, trail: Trail) -> Drawn | None:
    """Do what `_attempt` says."""
    progress = Progress(job, station)
    try:
        if _is_suspect(job):
            _wait_until_alone(job, progress, station)
        station.duty.start(job.waited_s + trail.pass_on())
        try:
            with trail.phase("denoise") as progress.span:
                best = draw_best(job, station, progress)
        finally:
            station.duty.stop()
            station.pulse.send(Duty(station.duty.busy_s, station.duty.starved_s))
            station.tell_memory()
        return Drawn(job, best, progress, trail)
    except CancelRequested:
        progress.close()
        settle(job, station, lambda: station.store.let_go(job.id, job.fence))
    except JobLost:
        progress.close()
        log.warning("job %s was given to another worker", job.id, extra={"job_id": job.id})
    except NotAlone:
        progress.close()
        raise
    except DeviceLost:
        raise
    except GranuleError as error:
        progress.close()
        fail(job, error, station)
    return None
