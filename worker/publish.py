"""From finished pixels to an outcome: measure, encode, upload, and end the job."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.errors import GranuleError, StorageUnavailable, StoreUnavailable
from shared.filenames import thumbnail_name, variant_name
from shared.job_store import Finish
from shared.jobs import Job, JobError, Output, Result
from shared.metrics import COMPOSITION_ERROR
from shared.storage import attempt_prefix, output_key, thumbnail_key
from shared.tracing import span
from worker.appraisal import appraise
from worker.candidates import Best
from worker.images import Encoded, encode, encode_small
from worker.pictures import pictures_of
from worker.progress import CancelRequested, JobLost, Progress
from worker.pulse import Broke, Settled, Step
from worker.station import Station
from worker.trail import Trail

log = logging.getLogger(__name__)

UPLOAD_GAP_MAX_S = 15.0
STORE_PATIENCE_S = 600.0
STORE_GAP_S = 1.0

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A picture of `job` that waits to be published, the progress that may still have something to report, and the trail."""

    job: Job
    best: Best
    progress: Progress
    trail: Trail


def publish(drawn: Drawn, station: Station) -> None:
    """Bring a drawn picture to its job's outcome. Raises nothing: it is all that a publisher's thread does.

    When this returns, the job ended, or it belongs to somebody else, or (Redis away for longer than ten minutes) its lease
    will run out, or (after something unforeseen) the guardian was told to take it away.
    """
    try:
        with answerable(drawn.job, station), drawn.trail.phase("publish"):
            _publish(drawn, station)
    finally:
        drawn.trail.end()


@contextmanager
def answerable(job: Job, station: Station) -> Iterator[None]:
    """Do something for a job that is drawn no more. What nobody foresaw is told the guardian, and not raised."""
    try:
        yield
    except BrokenPipeError:
        return  # without a guardian the pulse ends this process
    except Exception:
        log.exception("job %s met an unforeseen error after it was drawn", job.id, extra={"job_id": job.id})
        with suppress(BrokenPipeError):
            station.pulse.send(Broke(job.id, job.fence, ends_worker=False))


def _publish(drawn: Drawn, station: Station) -> None:
    job = drawn.job
    drawn.progress.close()
    try:
        result = _upload(drawn, station)
        if settle(job, station, lambda: _succeed(drawn, result, station)) is Finish.REFUSED:
            _discard(job, station)
    except CancelRequested:
        settle(job, station, lambda: station.store.let_go(job.id, job.fence))
        _discard(job, station)
    except JobLost:
        log.warning("job %s was given to another worker", job.id, extra={"job_id": job.id})
        _discard(job, station)
    except GranuleError as error:
        fail(job, error, station)
        _discard(job, station)
    station.pulse.send(Settled(job.id, job.fence))


def settle(job: Job, station: Station, finish: Callable[[], Outcome]) -> Outcome | None:
    """Write what becomes of a job, again and again while Redis is away. None: it stayed away too long."""
    deadline_s = time.monotonic() + STORE_PATIENCE_S
    while time.monotonic() < deadline_s:
        station.pulse.send(Step(job.id, job.fence))
        try:
            with span("finish") as finishing:
                outcome = finish()
                said = outcome.name.lower() if isinstance(outcome, Enum) else "no longer ours"
                finishing.set({"granule.finish": said})
        except StoreUnavailable:
            time.sleep(STORE_GAP_S)
            continue
        log.info("job %s: %s", job.id, said, extra={"job_id": job.id})
        return outcome
    log.error("the outcome of job %s could not be recorded; it will be rendered again", job.id, extra={"job_id": job.id})
    return None


def fail(job: Job, error: GranuleError, station: Station) -> None:
    """Write down why a job cannot be done."""
    log.error("job %s failed: %s", job.id, error, extra={"job_id": job.id})
    reason = JobError(error.code, error.detail)
    settle(job, station, lambda: station.store.fail(job.id, job.fence, reason))


def _succeed(drawn: Drawn, result: Result, station: Station) -> Finish:
    # A report that Redis was away for would otherwise be missing in the logs. Whose job it is, the finish itself asks.
    with suppress(CancelRequested, JobLost):
        if drawn.progress.is_behind:
            drawn.progress.report()
    return station.store.succeed(drawn.job.id, drawn.job.fence, result)


def _upload(drawn: Drawn, station: Station) -> Result:
    """Measure, encode and store a picture, and return what the record will say about it.

    Uploads are tried again, with growing gaps, for as long as the station allows for all pictures of a job together.

    Raises:
        StorageUnavailable: the storage stayed away for all that time.
        CancelRequested, JobLost: nobody wants the picture any more.
    """
    job, best = drawn.job, drawn.best
    with span("measure"):
        appraisal = appraise(job, best.pixels, station.manifest)
    if appraisal.color_error is not None:
        COMPOSITION_ERROR.labels(job.spec.model).observe(appraisal.color_error)
    pictures = pictures_of(best.pixels, job.spec.render, appraisal)
    deadline_s = time.monotonic() + station.publish_limit_s
    stored = [_store(drawn, index, *picture, station, deadline_s) for index, picture in enumerate(pictures)]
    return Result(
        outputs=[output for output, _ in stored],
        thumbnails=[thumbnail for _, thumbnail in stored],
        predict_time_s=best.duration_s,
        provenance=best.provenance,
        composition=appraisal.parts,
        color_error=appraisal.color_error,
        tile_score=appraisal.tile_score,
        seam_score=appraisal.seam_score,
        candidates=best.candidates,
    )


def _store(
    drawn: Drawn, index: int, variant: str, pixels: NDArray[np.uint8], station: Station, deadline_s: float
) -> tuple[Output, Output]:
    """Encode and upload one picture of a job and its small version. `variant` tells it from the job's others in its name.

    Raises as `_upload`.
    """
    job, spec = drawn.job, drawn.job.spec
    encoded = encode(
        pixels,
        output_format=spec.render.output_format,
        output_quality=spec.render.output_quality,
        parameters=asdict(spec.render) | {"model": spec.model, "version": spec.version, "job": job.id},
    )
    small, filename = encode_small(pixels), variant_name(spec.filename, variant)
    key, small_key = output_key(job.id, job.fence, index, encoded.extension), thumbnail_key(job.id, job.fence, index)
    return (
        _put(drawn, Output(key, filename, *_identity(encoded), variant), encoded.data, station, deadline_s),
        _put(drawn, Output(small_key, thumbnail_name(filename), *_identity(small), variant), small.data, station, deadline_s),
    )


def _identity(encoded: Encoded) -> tuple[str, int, str]:
    return encoded.content_type, len(encoded.data), hashlib.sha256(encoded.data).hexdigest()


def _put(drawn: Drawn, output: Output, data: bytes, station: Station, deadline_s: float) -> Output:
    """Upload one file of a job, and return what the record will say about it. Raises as `_upload`."""
    spec = drawn.job.spec
    metadata = {"model": spec.model, "seed": str(spec.render.seed), "prompt": spec.render.prompt}

    def put() -> None:
        with suppress(StoreUnavailable):
            drawn.progress.report()
        station.storage.put(output.key, data, content_type=output.content_type, metadata=metadata)

    with span("upload", {"granule.size_bytes": len(data)}):
        _try_until(deadline_s, put, drawn.job, station)
    return output


def _try_until(deadline_s: float, put: Callable[[], None], job: Job, station: Station) -> None:
    gap_s = 0.5
    while True:
        station.pulse.send(Step(job.id, job.fence))
        try:
            return put()
        except StorageUnavailable as error:
            if time.monotonic() + gap_s > deadline_s:
                raise
            log.warning("%s; the picture of job %s is sent again in %.1f s", error, job.id, gap_s, extra={"job_id": job.id})
        time.sleep(gap_s)
        gap_s = min(gap_s * 2, UPLOAD_GAP_MAX_S)


def _discard(job: Job, station: Station) -> None:
    """Remove whatever this attempt at a job stored. What cannot be removed now is cleared away with the job's data."""
    try:
        for key in station.storage.keys(attempt_prefix(job.id, job.fence)):
            station.storage.delete(key)
    except StorageUnavailable as error:
        log.warning("objects of job %s, fence %d, are left over: %s", job.id, job.fence, error, extra={"job_id": job.id})
