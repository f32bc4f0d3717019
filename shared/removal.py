"""Removing what a job produced and was given: its owner may ask for it, and the sweep does it when the time is over."""

from __future__ import annotations

from shared.job_store import JobStore
from shared.jobs import Job
from shared.storage import Storage, attempt_of, attempt_prefix, outputs_prefix


def remove_data(job: Job, store: JobStore, storage: Storage) -> bool:
    """Delete every stored object of an ended job, then its input, logs and outputs from the record. False: it has not ended.

    The objects go first: whatever fails in between leaves the job due, and both can be done again.

    Raises:
        StorageUnavailable, StoreUnavailable: a server did not answer.
    """
    if not job.status.is_terminal:
        return False
    for key in _keys(job, storage):
        storage.delete(key)
    return store.remove_data(job)


def remove_leftovers(job: Job, store: JobStore, storage: Storage) -> None:
    """Delete the stored objects of every attempt at a job that neither ended it nor is under way.

    Raises:
        StorageUnavailable, StoreUnavailable: a server did not answer.
    """
    published = {output.key for output in job.result.outputs} if job.result else set()
    under_way = None if job.status.is_terminal else attempt_prefix(job.id, job.fence)
    for key in _keys(job, storage):
        if key not in published and (under_way is None or not key.startswith(under_way)):
            storage.delete(key)
    store.forget_leftovers(job.id)


def _keys(job: Job, storage: Storage) -> list[str]:
    """List the objects of the attempts that there had been when the record was read: it may have been queued again since."""
    return [key for key in storage.keys(outputs_prefix(job.id)) if attempt_of(key) <= job.fence]
