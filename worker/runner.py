"""One render job from claim to outcome. No Celery, no torch: what it needs is passed in.

The order of the steps, and what each failure means for the job, is decided here and nowhere else.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable

from tqdm import tqdm

from shared.errors import DeviceLost, GranuleError, StoreUnavailable
from shared.job_store import Beat, Finish
from shared.jobs import Job, JobError
from worker.publish import discard, upload
from worker.pulse import Step
from worker.station import Station

log = logging.getLogger(__name__)

STORE_PATIENCE_S = 600.0
RETRY_GAP_S = 1.0
CLAIM_TRIES = 4
STORE_AWAY_S = 10.0
METER_COLUMNS = 60


class CancelRequested(Exception):
    """The owner of the job called it off; raised between two steps."""


class JobLost(Exception):
    """The job was given to another worker; raised between two steps."""


class WorkerBroken(Exception):
    """This process can render no more: its device is lost, or something happened that nobody foresaw.

    It must end without another word; the guardian then charges the job with a crash, gives it to the next worker and starts
    a fresh process.
    """


def run_job(job_id: str, station: Station) -> None:
    """Render a job that a message named, if there is anything to do, and bring it to an outcome.

    When this returns, the job ended, or it belongs to somebody else, or (Redis away for longer than ten minutes) its lease
    will run out and the sweep gives it to the next worker. The message can be acknowledged in every case.

    Raises:
        StoreUnavailable: no answer about the claim. If it was made all the same, the lease brings the job back.
        WorkerBroken: the process must end.
    """
    job = _claim(job_id, station)
    if job is None:
        log.info("nothing to do for a message about job %s", job_id, extra={"job_id": job_id})
        return
    log.info("job %s claimed, fence %d", job.id, job.fence, extra={"job_id": job.id})
    with station.pulse.holding(job.id, job.fence):
        try:
            _render_and_publish(job, station)
        except CancelRequested:
            _settle(job, station, lambda: station.store.let_go(job.id, job.fence))
        except JobLost:
            log.warning("job %s was given to another worker", job.id, extra={"job_id": job.id})
            discard(job, station)
        except DeviceLost as error:
            raise WorkerBroken from error
        except GranuleError as error:
            log.error("job %s failed: %s", job.id, error, extra={"job_id": job.id})
            reason = JobError(error.code, error.detail)
            _settle(job, station, lambda: station.store.fail(job.id, job.fence, reason))
            discard(job, station)
        except Exception as error:
            log.exception("job %s met an unforeseen error", job.id, extra={"job_id": job.id})
            raise WorkerBroken from error


def _claim(job_id: str, station: Station) -> Job | None:
    """Claim a job, with one token for all tries: a claim whose reply was lost is found again."""
    token = secrets.token_hex(8)
    for _ in range(CLAIM_TRIES - 1):
        try:
            return station.store.claim(job_id, worker=station.name, delivery_token=token)
        except StoreUnavailable:
            time.sleep(RETRY_GAP_S)
    return station.store.claim(job_id, worker=station.name, delivery_token=token)


def _render_and_publish(job: Job, station: Station) -> None:
    rendered = station.pipeline.render(job.spec.render, _Progress(job, station))
    result = upload(job, rendered.pixels, rendered.duration_s, station)
    if _settle(job, station, lambda: station.store.succeed(job.id, job.fence, result)) is Finish.REFUSED:
        discard(job, station)


def _settle(job: Job, station: Station, finish: Callable[[], Finish]) -> Finish | None:
    """Write the outcome, again and again while Redis is away. None: it stayed away too long."""
    deadline_s = time.monotonic() + STORE_PATIENCE_S
    while time.monotonic() < deadline_s:
        station.pulse.send(Step())
        try:
            outcome = finish()
        except StoreUnavailable:
            time.sleep(RETRY_GAP_S)
            continue
        log.info("job %s: %s", job.id, outcome.name.lower(), extra={"job_id": job.id})
        return outcome
    log.error("the outcome of job %s could not be recorded; it will be rendered again", job.id, extra={"job_id": job.id})
    return None


class _Progress:
    """Called after each denoising step: tells guardian and record, and raises when the job is no longer to be rendered.

    The log line has the form of tqdm's, because the official clients read their progress from it.
    """

    def __init__(self, job: Job, station: Station) -> None:
        self._job = job
        self._station = station
        self._started_s = time.monotonic()
        self._silent_until_s = 0.0
        self._unsent = f"Using seed: {job.spec.render.seed}\n"

    def __call__(self, step: int, steps: int) -> None:
        self._station.pulse.send(Step())
        now_s = time.monotonic()
        elapsed_s = now_s - self._started_s
        self._unsent += tqdm.format_meter(step, steps, elapsed_s, ncols=METER_COLUMNS, ascii=True) + "\n"
        if now_s < self._silent_until_s:
            return
        try:
            beat = self._station.store.renew(self._job.id, self._job.fence, step=step, log=self._unsent)
        except StoreUnavailable:
            # The picture is worth finishing: the outcome is written when Redis is back, if the job is still ours then.
            self._silent_until_s = now_s + STORE_AWAY_S
            return
        self._unsent = ""
        if beat is Beat.CANCEL:
            raise CancelRequested
        if beat is Beat.LOST:
            raise JobLost
