"""The sweep: looks again and again for what nobody else will bring to an end.

Jobs whose worker died with its guardian, jobs whose message was lost, webhook deliveries that are due, and data whose time
is over. Every look is a handful of commands, every move is safe to make twice, so each courier runs one and none leads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from shared.errors import StorageUnavailable, StoreUnavailable
from shared.job_store import JobStore
from shared.jobs import JobError, Lane, Status
from shared.manifest import Catalog
from shared.metrics import MESSAGES_REPUBLISHED, SWEEP_LOOKS
from shared.outbox import Outbox
from shared.queue import enqueue_delivery, enqueue_render, message_lists
from shared.removal import remove_data, remove_leftovers
from shared.storage import Storage

log = logging.getLogger(__name__)

DELIVERY_HOLD_S = 60.0
DELIVERIES_A_LOOK = 50
TICK_S = 0.25
"""How often due deliveries and expired leases are looked for: a look that is late is taken for an absence of Redis."""
JOBS_EVERY_TICKS = 4
"""Lost messages, deadlines and leftovers: once a second."""
DATA_EVERY_TICKS = 240
"""Data and rows whose retention is over: once a minute."""
DEADLINE_PASSED = JobError("deadline_passed", "the prediction had not ended by its deadline (Cancel-After)")


Looks = tuple[tuple[Callable[[], None], int], ...]
"""What is looked for, and every how many ticks."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What the sweep looks through."""

    store: JobStore
    outbox: Outbox
    storage: Storage
    catalog: Catalog
    celery: Celery
    prefix: str

    def deliveries(self) -> None:
        """Send every due delivery to a courier; one that is not settled within a minute is sent again."""
        for delivery_id in self.outbox.take_due(limit=DELIVERIES_A_LOOK, hold_s=DELIVERY_HOLD_S):
            enqueue_delivery(self.celery, delivery_id)

    def leases(self) -> None:
        """Give the jobs of silent workers to others. Not when Redis itself was away: no owner could renew then."""
        if not self.store.is_amnesty():
            self._each(self.store.expired_leases(), self._expire)

    def messages(self) -> None:
        """Publish again what was recorded but whose message is gone."""
        for manifest in self.catalog.models:
            for job_id in self.store.lost(manifest.slug, message_lists(manifest.slug, prefix=self.prefix)):
                log.warning("the message of job %s was lost; it is sent again", job_id, extra={"job_id": job_id})
                enqueue_render(self.celery, job_id, model=manifest.slug, lane=Lane.RECOVERY)
                MESSAGES_REPUBLISHED.labels(manifest.slug).inc()

    def deadlines(self) -> None:
        """Call off the jobs that have not ended by the time their callers gave them."""
        self._each(self.store.overdue(), lambda job_id: self.store.cancel(job_id, DEADLINE_PASSED))

    def data(self) -> None:
        """Remove the pictures and inputs of jobs whose retention is over, or whose owner wants them gone."""
        self._each(self.store.expiring(), lambda job_id: remove_data(self.store.get(job_id), self.store, self.storage))

    def leftovers(self) -> None:
        """Remove the pictures that attempts left behind which did not end their jobs."""
        self._each(
            self.store.with_leftovers(), lambda job_id: remove_leftovers(self.store.get(job_id), self.store, self.storage)
        )

    def rows(self) -> None:
        """Forget the jobs whose data went long ago."""
        self._each(self.store.outlived(), self.store.purge)

    def _expire(self, job_id: str) -> None:
        status = self.store.expire(job_id)
        if status is not None:
            log.warning("the lease of job %s ran out; it is %s", job_id, status, extra={"job_id": job_id})
        if status is Status.QUEUED:
            enqueue_render(self.celery, job_id, model=self.store.get(job_id).spec.model, lane=Lane.RECOVERY)

    def _each(self, job_ids: list[str], move: Callable[[str], object]) -> None:
        """Make one move for each job. One whose record cannot be read is set aside, so that it stands before no other."""
        for job_id in job_ids:
            try:
                move(job_id)
            except (StoreUnavailable, StorageUnavailable):
                raise
            except Exception:
                log.exception("job %s is set aside: its record cannot be read", job_id, extra={"job_id": job_id})
                self.store.set_aside(job_id)

    def start(self, stop: threading.Event) -> None:
        """Look, in threads of its own, until `stop` is set. A server that is away ends one look, never the sweep.

        What needs the storage has its own thread: a storage that hangs must not keep jobs from being given to others.
        """
        for name, looks in (("sweep", self._record_looks()), ("sweep-storage", self._storage_looks())):
            threading.Thread(target=self._run, args=(looks, stop), name=name, daemon=True).start()

    def _run(self, looks: Looks, stop: threading.Event) -> None:
        tick = 0
        while not stop.is_set():
            started_s = time.monotonic()
            for look, every in looks:
                if tick % every == 0:
                    self._try(look)
            tick += 1
            stop.wait(max(0.0, TICK_S - (time.monotonic() - started_s)))

    def _record_looks(self) -> Looks:
        return (
            (self.deliveries, 1),
            (self.leases, 1),
            (self.messages, JOBS_EVERY_TICKS),
            (self.deadlines, JOBS_EVERY_TICKS),
            (self.rows, DATA_EVERY_TICKS),
        )

    def _storage_looks(self) -> Looks:
        return (
            (self.leftovers, JOBS_EVERY_TICKS),
            (self.data, DATA_EVERY_TICKS),
        )

    def _try(self, look: Callable[[], None]) -> None:
        result = "done"
        try:
            look()
        except (StoreUnavailable, StorageUnavailable) as error:
            result = "away"
            log.warning("the sweep could not look for %s: %s", look.__name__, error)
        except Exception:
            # Whatever it is, it must not end the looks for everything else.
            result = "error"
            log.exception("the sweep met an unforeseen error while it looked for %s", look.__name__)
        SWEEP_LOOKS.labels(look.__name__, result).inc()
