"""A model's line of waiting jobs on one Redis, and the time that each call on it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from redis import Redis

from bench.tiles import order_of
from shared.filenames import thumbnail_name
from shared.job_store import JobStore, connect_store
from shared.jobs import Job, JobSpec, Output, Result
from shared.queue import message_lists
from shared.settings import Settings

PAGE_JOBS = 100
WORKER = "bench"


class Line:
    """A model's line on one Redis, and each call on it as `JobStore` makes it."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._model = settings.model
        self._redis = redis
        self._lists = message_lists(settings.model, prefix=settings.redis_prefix)
        # A message that waits, as one always does in a long line: without any the sweep would send all of them again.
        redis.rpush(self._lists[-1], "a message")
        self.store: JobStore = connect_store(settings, redis)
        self.waiting: list[JobSpec] = []

    def fill(self, depth: int) -> None:
        """Make the line as long as that."""
        while len(self.waiting) < depth:
            self.create()

    def create(self) -> None:
        """Put one more job at the end."""
        spec = order_of(self._model)
        self.store.create(spec, body_hash=spec.id, queue_max_jobs=10**9)
        self.waiting.append(spec)

    def view(self) -> None:
        """Read a job in the middle."""
        place = len(self.waiting) // 2
        position = self.store.view(self.waiting[place].id)[1].queue_position
        assert position == place, f"place {position} in line, not {place}"

    def claim(self) -> Job:
        """Take the first."""
        job = self.store.claim_next(self._model, worker=WORKER, token=self.waiting[0].id)
        assert job is not None and job.id == self.waiting.pop(0).id, "another job than the first was taken"
        return job

    def renew(self, job: Job) -> None:
        """Show a step of it."""
        self.store.renew(job.id, job.fence, step=1, log="1/20\n")

    def finish(self, job: Job) -> None:
        """End one."""
        output = Output(f"outputs/{job.id}/1/0.png", job.spec.filename, "image/png", 1_000_000, "0" * 64)
        small = Output(f"outputs/{job.id}/1/0.thumb.webp", thumbnail_name(job.spec.filename), "image/webp", 45_000, "0" * 64)
        self.store.succeed(job.id, job.fence, Result([output], 0.5, thumbnails=[small]))

    def page(self, at: int | None) -> None:
        """Read a hundred predictions of the tenant, the newest or those before number `at`."""
        assert self.store.list_jobs("bench", before_seq=at, limit=PAGE_JOBS)

    def sweep(self) -> None:
        """Look for everything that the sweep looks for each second."""
        store = self.store
        store.lost(self._model, self._lists)
        store.is_amnesty()
        for look in (store.expired_leases, store.overdue, store.with_leftovers, store.expiring, store.outlived):
            look()

    def commands(self) -> int:
        """How many commands Redis has run, those of scripts included."""
        stats = cast("dict[str, dict[str, Any]]", self._redis.info("commandstats"))
        return sum(int(row["calls"]) for row in stats.values())

    def memory_bytes(self) -> int:
        """What all keys take."""
        return int(self._redis.info("memory")["used_memory"])


def measure(line: Line, depth: int, times: int) -> dict[str, list[float]]:
    """Return how many seconds each call took, `times` times each, with `depth` jobs waiting."""
    line.fill(depth)
    took: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        began_s = time.perf_counter()
        answer = call()
        took.setdefault(name, []).append(time.perf_counter() - began_s)
        return answer

    middle = line.store.get(line.waiting[depth // 2].id).seq
    for _ in range(times):
        timed("create", line.create)
        timed("view", line.view)
        job: Job = timed("claim", line.claim)
        timed("renew", partial(line.renew, job))
        timed("finish", partial(line.finish, job))
        timed("list", lambda: line.page(None))
        timed("page", lambda: line.page(middle))
        timed("sweep", line.sweep)
    return took
