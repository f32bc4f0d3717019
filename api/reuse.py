"""An order that was drawn before: the stored picture becomes the new prediction's own."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace

from werkzeug.datastructures import Headers

from shared.errors import NotFound, StorageUnavailable
from shared.filenames import thumbnail_name, variant_name
from shared.job_store import JobStore
from shared.jobs import Job, Output, Result
from shared.storage import Storage, attempt_prefix

FRESH = re.compile(r"(?:^|[\s,])(?:no-cache|no-store|max-age=0)(?=$|[\s,;])", re.IGNORECASE)

log = logging.getLogger(__name__)


def wants_fresh(headers: Headers) -> bool:
    """Tell whether the caller refuses a stored answer, as `Cache-Control: no-cache` says it in HTTP."""
    return FRESH.search(headers.get("Cache-Control", "")) is not None


def end_with_stored(job: Job, source: Job, store: JobStore, storage: Storage) -> Job | None:
    """End a job that `JobStore.create` handed over, with copies of its source's pictures, and return it.

    The copies are the job's own, so it is all the same to them what becomes of the source. None: the pictures cannot be
    had now, and the job waits for a worker.

    Raises:
        StoreUnavailable: Redis went away; the job goes to a worker when its lease has run out.
    """
    try:
        result = _copied(job, source, storage)
    except (NotFound, StorageUnavailable) as error:
        log.warning("job %s is drawn anew: %s", job.id, error, extra={"job_id": job.id})
        store.release(job.id, job.fence)
        return None
    ended = store.succeed_at_once(job.id, job.fence, result)
    if ended is None:
        log.warning("job %s was given to a worker while its picture was copied", job.id, extra={"job_id": job.id})
    return ended


def _copied(job: Job, source: Job, storage: Storage) -> Result:
    if source.result is None or not source.result.outputs:
        raise NotFound(f"job {source.id} has no picture any more")
    outputs = [_copy(job, output, storage) for output in source.result.outputs]
    thumbnails = [_copy(job, thumbnail, storage, thumbnail_name) for thumbnail in source.result.thumbnails]
    return replace(source.result, outputs=outputs, thumbnails=thumbnails, predict_time_s=0.0)


def _copy(job: Job, file: Output, storage: Storage, rename: Callable[[str], str] = str) -> Output:
    """Copy one file of another job's last attempt to the same place of this one. `rename` makes its name of the picture's."""
    key = attempt_prefix(job.id, job.fence) + file.key.rpartition("/")[2]
    storage.copy(file.key, key)
    return replace(file, key=key, filename=rename(variant_name(job.spec.filename, file.variant)))
