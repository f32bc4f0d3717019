"""Job records in Redis, read: one job, a tenant's jobs, what is due, and the wait for a change."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, cast

from redis import Redis

from shared.census import Census, read_census
from shared.errors import NotFound
from shared.jobs import Job, Lane
from shared.outlook import Outlook, Traffic, outlook
from shared.redis_client import Scripts, answering

FOLLOW_POLL_S = 1.0

log = logging.getLogger(__name__)


class JobReader:
    """The half of the job store that changes nothing. All methods raise StoreUnavailable when Redis does not answer."""

    def __init__(self, redis: Redis, *, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._scripts = Scripts(redis, prelude="prelude")

    def get(self, job_id: str) -> Job:
        """Return a job. Raises NotFound."""
        with answering():
            fields = cast("dict[str, str]", self._redis.hgetall(self._key(f"job:{job_id}")))
        if not fields:
            raise NotFound(f"no prediction {job_id!r}", field="prediction_id")
        return Job.from_fields(fields)

    def view(self, job_id: str) -> tuple[Job, Outlook]:
        """Return a job and what to expect of it, in one round trip. Raises NotFound."""
        return read_view(job_id, self._run("view", job_id))

    def by_file_token(self, token: str) -> Job:
        """Return the job whose file URLs carry this token. Raises NotFound."""
        with answering():
            job_id = cast("str | None", self._redis.get(self._key(f"file:{token}")))
        if job_id is None:
            raise NotFound("no such file", field="token")
        return self.get(job_id)

    def list_jobs(
        self,
        tenant: str | None,
        *,
        before_seq: int | None = None,
        after_seq: int | None = None,
        oldest: bool = False,
        limit: int = 100,
    ) -> list[Job]:
        """Return up to `limit` of a tenant's jobs (None: everybody's) numbered strictly between the two, newest first.

        Where more fit, they are the newest of them, or with `oldest` those that come right after `after_seq`. A job whose
        record cannot be read is passed over: it would keep all others from being listed.
        """
        key = self._key("jobs" if tenant is None else f"jobs:{tenant}")
        low = "-inf" if after_seq is None else f"({after_seq}"
        high = "+inf" if before_seq is None else f"({before_seq}"
        found: list[Job] = []
        while True:
            wanted = limit - len(found)
            entries = self._numbered(key, low, high, wanted, oldest=oldest)
            found += self._readable([job_id for job_id, _ in entries])
            if len(entries) < wanted or len(found) == limit:
                return found[::-1] if oldest else found
            last = f"({int(entries[-1][1])}"
            low, high = (last, high) if oldest else (low, last)

    def seq_at(self, tenant: str | None, created_ms: int) -> int:
        """Return the number that a tenant's (None: anybody's) first job created at that moment or later has, or would have."""
        return int(self._run("seek", "", tenant or "", created_ms))

    def run_counts(self) -> dict[str, int]:
        """How many jobs of each model were ever recorded."""
        with answering():
            counts = cast("dict[str, str]", self._redis.hgetall(self._key("runs")))
        return {model: int(count) for model, count in counts.items()}

    def position(self, job: Job) -> int | None:
        """How many jobs of its model are served before this one (0: it is next), or None when it is not waiting."""
        return self.view(job.id)[1].queue_position

    def depth(self, model: str) -> int:
        """How many jobs of a model are waiting."""
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            for lane in Lane:
                pipe.zcard(self._queued_key(model, lane))
            return sum(pipe.execute())

    def follow(self, job_id: str, timeout_s: float) -> Generator[Job, None, None]:
        """Yield the job as it is, and again whenever it may have changed (at least once a second), until it has ended.

        After `timeout_s` seconds it is yielded for the last time. Close the iterator to stop before. Raises NotFound.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]
            with answering():
                subscription.subscribe(self._key(f"changed:{job_id}"))
            while True:
                job = self.get(job_id)
                yield job
                left_s = deadline_s - time.monotonic()
                if job.status.is_terminal or left_s <= 0:
                    return
                # The message is only a nudge: the record is read again after every one, and once a second without any.
                with answering():
                    subscription.get_message(timeout=min(left_s, FOLLOW_POLL_S))

    def wait(self, job_id: str, timeout_s: float) -> Job:
        """Return the job as soon as it has ended, or as it is after `timeout_s` seconds. Raises NotFound."""
        return deque(self.follow(job_id, timeout_s), maxlen=1).pop()

    def census(self, models: Sequence[str]) -> Census:
        """Count the jobs of these models, and what was counted since the records began, in one moment."""
        return read_census(models, self._run("census", "", *models))

    def dead(self, *, limit: int = 100) -> tuple[int, list[str]]:
        """Count the dead jobs, which failed because their workers died over them; return ids, the longest dead first."""
        with answering():
            ids = cast("list[str]", self._redis.zrange(self._key("dead"), 0, limit - 1))
            return self._redis.zcard(self._key("dead")), ids

    # -- for the sweep: ids, those due longest first

    def expired_leases(self, limit: int = 100) -> list[str]:
        """Running jobs whose lease has run out."""
        return self._due("leases", limit)

    def overdue(self, limit: int = 100) -> list[str]:
        """Jobs that have not ended by their deadline."""
        return self._due("deadlines", limit)

    def expiring(self, limit: int = 100) -> list[str]:
        """Ended jobs whose data is to be removed."""
        return self._due("expiring", limit)

    def with_leftovers(self, limit: int = 100) -> list[str]:
        """Ended jobs of which an attempt that did not end them may have left pictures in the bucket."""
        return self._due("leftovers", limit)

    def outlived(self, limit: int = 100) -> list[str]:
        """Jobs without data whose row has been kept for long enough."""
        return self._due("rows", limit)

    # -- inside

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _queued_key(self, model: str, lane: Lane) -> str:
        return self._key(f"queued:{model}:{lane}")

    def _numbered(self, key: str, low: str, high: str, limit: int, *, oldest: bool) -> list[tuple[str, float]]:
        """Return ids and numbers of the first `limit` jobs of a list between two bounds, from the older or the newer end."""
        with answering():
            if oldest:
                found = self._redis.zrangebyscore(key, low, high, 0, limit, withscores=True)
            else:
                found = self._redis.zrevrangebyscore(key, high, low, 0, limit, withscores=True)
        return cast("list[tuple[str, float]]", found)

    def _readable(self, job_ids: Sequence[str]) -> list[Job]:
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hgetall(self._key(f"job:{job_id}"))
            records = cast("list[dict[str, str]]", pipe.execute())
        found = []
        for job_id, fields in zip(job_ids, records, strict=True):
            try:
                found += [Job.from_fields(fields)] if fields else []
            except (ValueError, KeyError, TypeError) as error:
                log.warning("job %s is left out of a list, unreadable: %r", job_id, error, extra={"job_id": job_id})
        return found

    def _due(self, name: str, limit: int) -> list[str]:
        with answering():
            seconds, micros = self._redis.time()
            now_ms = seconds * 1000 + micros // 1000
            return cast("list[str]", self._redis.zrangebyscore(self._key(name), "-inf", now_ms, 0, limit))

    def _run(self, script: str, job_id: str, *args: str | int) -> Any:
        return self._scripts.run(script, self._prefix, job_id, *args)


def read_view(job_id: str, reply: list[Any]) -> tuple[Job, Outlook]:
    """Read what the scripts' `view` returns: record, position, clock and traffic. Raises NotFound when the record is empty."""
    record, position, now_ms, traffic = reply
    if not record:
        raise NotFound(f"no prediction {job_id!r}", field="prediction_id")
    job = read_job(record)
    if not traffic:
        return job, Outlook()
    mean_ms, workers, begun_ms = traffic
    around = Traffic(now_ms, None if mean_ms < 0 else mean_ms, workers, begun_ms)
    return job, outlook(job, None if position < 0 else position, around)


def read_job(flat: list[str]) -> Job:
    """Read a record as scripts return it: names and values in turn."""
    return Job.from_fields(dict(zip(flat[::2], flat[1::2], strict=True)))
