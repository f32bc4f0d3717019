"""The outbox of webhooks: messages that jobs left behind, kept until a receiver took them or every try failed.

A delivery is written by the same script that made the event true (`shared/lua/prelude.lua`, `emit`). Nothing here can
touch a job.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from redis import Redis

from shared.jobs import Event, Job
from shared.redis_client import Scripts, answering

KEEP_DELIVERED_S = 3 * 24 * 3600


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    """To be tried, for the first time or again."""
    DELIVERED = "delivered"
    """The receiver answered 2xx."""
    DEAD = "dead"
    """Given up; it can be sent again by hand."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook message for one event of one job.

    `job` is the record as it was when the event happened; `body` the bytes that were sent first and are sent again at every
    try, None before the first; `seq` counts the messages of one job from 1; `attempts` how often it was tried; `note` what
    came of the last try.
    """

    id: str
    job: Job
    event: Event
    seq: int
    url: str
    state: DeliveryState
    attempts: int
    created_ms: int
    body: bytes | None = None
    note: str | None = None

    @property
    def message_id(self) -> str:
        """The `webhook-id`: unique to the message and the same at every try."""
        return f"msg_{self.id}"


class Outbox:
    """Deliveries on one Redis. Methods raise StoreUnavailable when Redis does not answer; every call can be repeated."""

    def __init__(self, redis: Redis, *, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._scripts = Scripts(redis, prelude="outbox_prelude")

    def take_due(self, *, limit: int, hold_s: float) -> list[str]:
        """Return deliveries whose time has come; for `hold_s` seconds nobody else is given them."""
        return cast("list[str]", self._scripts.run("take_due", self._prefix, limit, int(hold_s * 1000)))

    def get(self, delivery_id: str) -> Delivery | None:
        """Return a delivery, or None when it was delivered long ago and is forgotten."""
        with answering():
            fields = cast("dict[str, str]", self._redis.hgetall(self._key(delivery_id)))
        if not fields:
            return None
        flat = json.loads(fields["record"])
        body = fields.get("body")
        return Delivery(
            id=delivery_id,
            job=Job.from_fields(dict(zip(flat[::2], flat[1::2], strict=True))),
            event=Event(fields["event"]),
            seq=int(fields["seq"]),
            url=fields["url"],
            state=DeliveryState(fields["state"]),
            attempts=int(fields["attempts"]),
            created_ms=int(fields["created_ms"]),
            body=None if body is None else body.encode(),
            note=fields.get("note"),
        )

    def of_job(self, job_id: str) -> list[Delivery]:
        """Every delivery of a job that is still remembered, in the order of their events."""
        with answering():
            count = int(cast("str | None", self._redis.hget(f"{self._prefix}job:{job_id}", "deliveries")) or 0)
        found = (self.get(f"{job_id}.{n}") for n in range(1, count + 1))
        return [delivery for delivery in found if delivery is not None]

    def fix_body(self, delivery_id: str, body: bytes) -> bytes:
        """Keep the first body ever rendered for a delivery, and return the kept one."""
        with answering():
            self._redis.hsetnx(self._key(delivery_id), "body", body.decode())
            return cast("str", self._redis.hget(self._key(delivery_id), "body")).encode()

    def settle(self, delivery: Delivery, state: DeliveryState, *, note: str, retry_s: float = 0.0) -> None:
        """Record one try; with `pending` the next one follows after `retry_s` seconds."""
        keep_ms = KEEP_DELIVERED_S * 1000
        self._scripts.run("settle", self._prefix, delivery.id, delivery.attempts, state, int(retry_s * 1000), note, keep_ms)

    def _key(self, delivery_id: str) -> str:
        return f"{self._prefix}delivery:{delivery_id}"
