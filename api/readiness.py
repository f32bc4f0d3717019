"""Whether an order would be drawn now: asked by one caller at a time, and answered to all others without a question."""

from __future__ import annotations

import time
from threading import Lock

from api.resources import Readiness
from shared.errors import StorageUnavailable, StoreUnavailable
from shared.manifest import Catalog
from shared.storage import Storage
from shared.worker_registry import WorkerRegistry

PROBE_PREFIX = "readyz/"
"""Nothing is stored under it; listing it is the cheapest question that fails when the bucket is missing."""

FRESH_S = 1.0
"""An answer of this age is given again."""

LATE_S = 5.0
"""And while a newer one is looked for, one of this age. Beyond it, a server that does not answer is taken for absent."""

UNANSWERED = "no answer yet"


class Probe:
    """The question to Redis and storage, and the last answer to it. Safe to share between threads."""

    def __init__(self, workers: WorkerRegistry, storage: Storage, catalog: Catalog) -> None:
        self._workers = workers
        self._storage = storage
        self._models = [manifest.slug for manifest in catalog.models]
        self._asking = Lock()
        self._answer = self._found = self._blank()
        self._answered_s: float | None = None

    def readiness(self) -> Readiness:
        """Return whether Redis and storage answer and how many live workers each model has, as known now.

        One caller is held for as long as these servers take, all others for no time. While they are silent what was found
        so far is the answer.
        """
        if not self._is_younger_than(FRESH_S) and self._asking.acquire(blocking=False):
            try:
                self._ask()
            finally:
                self._asking.release()
        return self._answer if self._is_younger_than(LATE_S) else self._found

    def _is_younger_than(self, age_s: float) -> bool:
        return self._answered_s is not None and time.monotonic() - self._answered_s <= age_s

    def _ask(self) -> None:
        self._found = found = self._blank()
        try:
            alive = [worker.model for worker in self._workers.alive()]
            found["workers"] = {model: alive.count(model) for model in [*self._models, *alive]}
            found["redis"] = "ok"
        except StoreUnavailable as error:
            found["redis"] = error.detail
        try:
            self._storage.keys(PROBE_PREFIX)
            found["storage"] = "ok"
        except StorageUnavailable as error:
            found["storage"] = error.detail
        found["ready"] = found["redis"] == found["storage"] == "ok" and any(found["workers"].values())
        self._answer, self._answered_s = found, time.monotonic()

    def _blank(self) -> Readiness:
        return {"ready": False, "redis": UNANSWERED, "storage": UNANSWERED, "workers": dict.fromkeys(self._models, 0)}
