"""From finished pixels to stored pictures: measure, encode, upload. The outcome itself is the runner's."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from shared.errors import StorageUnavailable
from shared.jobs import Job, Output, Result
from shared.storage import attempt_prefix, output_key
from worker.composition import measure_composition
from worker.images import encode
from worker.pulse import Step
from worker.station import Station

log = logging.getLogger(__name__)

RETRY_GAP_MAX_S = 15.0


def upload(job: Job, pixels: NDArray[np.uint8], predict_time_s: float, station: Station) -> Result:
    """Measure and encode a picture (uint8, height x width x 3), store it, and return what the record will say about it.

    The upload is tried again, with growing gaps, for as long as the station allows.

    Raises:
        StorageUnavailable: the storage stayed away for all that time.
    """
    spec = job.spec
    composition = _composition(job, pixels, station)
    parameters = asdict(spec.render) | {"model": spec.model, "version": spec.version, "job": job.id}
    encoded = encode(
        pixels,
        output_format=spec.render.output_format,
        output_quality=spec.render.output_quality,
        parameters=parameters,
    )
    key = output_key(job.id, job.fence, 0, encoded.extension)
    metadata = {"model": spec.model, "seed": str(spec.render.seed), "prompt": spec.render.prompt}
    _put(key, encoded.data, encoded.content_type, metadata, station)
    digest = hashlib.sha256(encoded.data).hexdigest()
    output = Output(key, spec.filename, encoded.content_type, len(encoded.data), digest)
    return Result([output], predict_time_s, station.pipeline.provenance, *composition)


def discard(job: Job, station: Station) -> None:
    """Remove whatever this attempt at a job stored. What cannot be removed now is cleared away with the job's data."""
    try:
        for key in station.storage.keys(attempt_prefix(job.id, job.fence)):
            station.storage.delete(key)
    except StorageUnavailable as error:
        log.warning("objects of job %s, fence %d, are left over: %s", job.id, job.fence, error, extra={"job_id": job.id})


def _composition(job: Job, pixels: NDArray[np.uint8], station: Station) -> tuple[list[dict[str, object]] | None, float | None]:
    ordered = [(station.manifest.colors.find(name), share) for name, share in job.spec.mix]
    known = [(color, share) for color, share in ordered if color is not None]
    if not known or len(known) < len(ordered):
        return None, None
    try:
        measured = measure_composition(pixels, known, rivals=station.manifest.colors.colors)
    except Exception:  # a measurement must never decide what becomes of a job
        log.exception("the composition of job %s could not be measured", job.id, extra={"job_id": job.id})
        return None, None
    return [asdict(part) for part in measured.parts], measured.color_error


def _put(key: str, data: bytes, content_type: str, metadata: dict[str, str], station: Station) -> None:
    deadline_s = time.monotonic() + station.publish_limit_s
    gap_s = 0.5
    while True:
        station.pulse.send(Step())
        try:
            return station.storage.put(key, data, content_type=content_type, metadata=metadata)
        except StorageUnavailable as error:
            if time.monotonic() + gap_s > deadline_s:
                raise
            log.warning("%s; the upload of %s is tried again in %.1f s", error, key, gap_s)
        time.sleep(gap_s)
        gap_s = min(gap_s * 2, RETRY_GAP_MAX_S)
