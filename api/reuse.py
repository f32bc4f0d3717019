"""An order that was drawn before: the stored picture becomes the new prediction's own."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

from werkzeug.datastructures import Headers

from shared.errors import NotFound, StorageUnavailable
from shared.job_store import Finish, JobStore
from shared.jobs import Job, Output, Result
from shared.storage import Storage, output_key, outputs_prefix

FRESH = re.compile(r"(?:^|[\s,])(?:no-cache|no-store|max-age=0)(?=$|[\s,;])", re.IGNORECASE)

log = logging.getLogger(__name__)


def wants_fresh(headers: Headers) -> bool:
    """Tell whether the caller refuses a stored answer, as `Cache-Control: no-cache` says it in HTTP."""
    return FRESH.search(headers.get("Cache-Control", "")) is not None


def end_with_stored(job: Job, source: Job, store: JobStore, storage: Storage) -> bool:
    """End a job that `JobStore.create` handed over, with copies of its source's pictures.

    The copies are the job's own, so it is all the same to them what becomes of the source. False: the pictures cannot be
    had now, and the job waits for a worker.

    Raises:
        StoreUnavailable: Redis went away; the job goes to a worker when its lease has run out.
    """
    try:
        result = _copied(job, source, storage)
    except (NotFound, StorageUnavailable) as error:
        log.warning("job %s is drawn anew: %s", job.id, error, extra={"job_id": job.id})
        store.release(job.id, job.fence)
        return False
    if store.succeed(job.id, job.fence, result) is Finish.REFUSED:
        # The copy took longer than the lease. The next attempt writes under keys of its own.
        for key in storage.keys(f"{outputs_prefix(job.id)}{job.fence}/"):
            storage.delete(key)
        return False
    return True


def _copied(job: Job, source: Job, storage: Storage) -> Result:
    if source.result is None or not source.result.outputs:
        raise NotFound(f"job {source.id} has no picture any more")
    outputs = [_copy(job, index, output, storage) for index, output in enumerate(source.result.outputs)]
    return replace(source.result, outputs=outputs, predict_time_s=0.0)


def _copy(job: Job, index: int, output: Output, storage: Storage) -> Output:
    extension = output.key.rpartition(".")[2]
    key = output_key(job.id, job.fence, index, extension)
    storage.copy(output.key, key)
    return replace(output, key=key, filename=job.spec.filename)
