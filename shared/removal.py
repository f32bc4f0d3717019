"""Removing what a job produced and was given: its owner may ask for it, and the sweep does it when the time is over."""

from __future__ import annotations

from shared.job_store import JobStore
from shared.jobs import Job
from shared.storage import Storage, outputs_prefix


def remove_data(job: Job, store: JobStore, storage: Storage) -> bool:
    """Delete every stored object of an ended job, then its input, logs and outputs from the record. False: it has not ended.

    The objects go first: whatever fails in between leaves the job due, and both can be done again.

    Raises:
        StorageUnavailable, StoreUnavailable: a server did not answer.
    """
    if not job.status.is_terminal:
        return False
    for key in storage.keys(outputs_prefix(job.id)):
        storage.delete(key)
    return store.remove_data(job)
