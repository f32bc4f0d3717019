"""What goes on right now, read for operators: what waits in which line, what runs where, and what ended lately."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis

from shared.job_reader import JobReader
from shared.jobs import Lane, RenderSpec, Status
from shared.redis_client import answering
from shared.settings import Settings

HEADS = 10
"""How many of the jobs that wait in one line are looked at."""
ENDED_MAX = 2000
"""How many ended jobs are looked at, the latest first: enough for percentiles, and bounded."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One job that waits, since `created_ms`."""

    id: str
    tenant: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class Line:
    """One lane of one model: how many jobs wait in it, and the first of them, the one served next first."""

    model: str
    lane: Lane
    depth: int
    heads: tuple[Waiting, ...]


@dataclass(frozen=True, slots=True)
class Running:
    """One job that a worker holds since `started_ms`: `step` of its `steps` are done."""

    id: str
    tenant: str
    model: str
    worker: str
    started_ms: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Ended:
    """One job that ended. `started_ms` is None when it was never drawn; `error_code` says why it failed or was called off."""

    model: str
    status: Status
    created_ms: int
    started_ms: int | None
    completed_ms: int
    error_code: str | None
    reused: bool


class Floor(JobReader):
    """Reads across all tenants. All methods raise StoreUnavailable when Redis does not answer."""

    def __init__(self, redis: Redis, *, prefix: str, retention_s: float) -> None:
        super().__init__(redis, prefix=prefix)
        self._retention_ms = int(retention_s * 1000)

    def clock_ms(self) -> int:
        """Milliseconds since 1970 on Redis's clock, which all other times here are on."""
        with answering():
            seconds, micros = self._redis.time()
        return seconds * 1000 + micros // 1000

    def lines(self, models: Sequence[str]) -> list[Line]:
        """Every lane of every model, in the order in which lanes are served."""
        places = [(model, lane) for model in models for lane in Lane]
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            for model, lane in places:
                pipe.zcard(self._queued_key(model, lane))
                pipe.zrange(self._queued_key(model, lane), 0, HEADS - 1)
            replies = pipe.execute()
        records = self._fields([job_id for ids in replies[1::2] for job_id in ids], "tenant", "created_ms")
        return [
            Line(model, lane, depth, tuple(_waiting(job_id, records[job_id]) for job_id in ids if records[job_id][1]))
            for (model, lane), depth, ids in zip(places, replies[::2], replies[1::2], strict=True)
        ]

    def running(self, models: Sequence[str]) -> list[Running]:
        """Every job that a worker of these models holds, the longest held first."""
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            for model in models:
                pipe.zrange(self._key(f"running:{model}"), 0, -1)
            held = dict(zip(models, cast("list[list[str]]", pipe.execute()), strict=True))
        wanted = [job_id for ids in held.values() for job_id in ids]
        records = self._fields(wanted, "tenant", "worker", "started_ms", "step", "spec")
        found = [_running(job_id, model, records[job_id]) for model, ids in held.items() for job_id in ids]
        return sorted((job for job in found if job is not None), key=lambda job: job.started_ms)

    def ended_per_minute(self, now_ms: int, minutes: int) -> list[int]:
        """How many jobs ended in each of the last minutes, the earliest first."""
        edges = [now_ms - 60_000 * minute + self._retention_ms for minute in range(minutes, -1, -1)]
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            for low, high in zip(edges, edges[1:], strict=False):
                pipe.zcount(self._key("expiring"), f"({low}", high)
            return [int(count) for count in pipe.execute()]

    def ended(self, since_ms: int) -> list[Ended]:
        """Jobs that ended since then and whose data is still there, the latest first, at most `ENDED_MAX`."""
        # An ended job expires one retention after its end, so the index of what expires is one of what ended.
        low = since_ms + self._retention_ms
        with answering():
            ids = cast("list[str]", self._redis.zrevrangebyscore(self._key("expiring"), "+inf", low, 0, ENDED_MAX))
        names = ("model", "status", "created_ms", "started_ms", "completed_ms", "error", "reused_from")
        records = self._fields(ids, *names)
        return [_ended(records[job_id]) for job_id in ids if records[job_id][0] and records[job_id][4]]

    def deliveries_pending(self) -> int:
        """How many webhook messages are still to be taken."""
        with answering():
            return int(self._redis.zcard(self._key("deliveries:due")))

    def _fields(self, ids: Sequence[str], *names: str) -> dict[str, list[str | None]]:
        """Some fields of some jobs, None where one is not set."""
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            for job_id in ids:
                pipe.hmget(self._key(f"job:{job_id}"), *names)
            return dict(zip(ids, pipe.execute(), strict=True))


def connect_floor(settings: Settings, redis: Redis) -> Floor:
    """Build the reader as the settings say. Nothing is sent yet."""
    return Floor(redis, prefix=settings.redis_prefix, retention_s=settings.retention_s)


def _waiting(job_id: str, fields: Sequence[str | None]) -> Waiting:
    tenant, created_ms = fields
    return Waiting(job_id, tenant or "", int(created_ms or 0))


def _running(job_id: str, model: str, fields: Sequence[str | None]) -> Running | None:
    tenant, worker, started_ms, step, spec = fields
    if worker is None or started_ms is None or spec is None:
        return None  # it ended between the two questions
    steps = RenderSpec.from_dict(json.loads(spec)["render"]).total_steps
    return Running(job_id, tenant or "", model, worker, int(started_ms), int(step or 0), steps)


def _ended(fields: Sequence[str | None]) -> Ended:
    model, status, created_ms, started_ms, completed_ms, error, reused_from = fields
    return Ended(
        model=model or "",
        status=Status(status or ""),
        created_ms=int(created_ms or 0),
        started_ms=None if started_ms is None else int(started_ms),
        completed_ms=int(completed_ms or 0),
        error_code=json.loads(error)["code"] if error else None,
        reused=reused_from is not None,
    )
