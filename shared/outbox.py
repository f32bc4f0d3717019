"""The outbox of webhooks: messages that jobs left behind, kept until a receiver took them or every try failed.

A delivery is written by the same script that made the event true (`shared/lua/prelude.lua`, `emit`). Nothing here can
touch a job.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from redis import Redis

from shared.errors import GranuleError, NotFound
from shared.jobs import Event, Job
from shared.redis_client import Scripts, answering
from shared.settings import Settings

KEEP_DELIVERED_S = 3 * 24 * 3600

AT_ONCE = 2
"""How many deliveries to one receiver (scheme, host and port) are tried at the same time, by all couriers together."""
SILENT_AFTER = 5
"""After so many tries in a row without any answer a receiver is left alone for a while, and then tried one at a time."""
SILENT_PAUSE_S = 60.0
SILENT_PATIENCE_S = 24 * 3600.0
"""A delivery that waits for longer than this behind others, because its receiver does not answer, is dead."""

log = logging.getLogger(__name__)


class DeliveryUnreadable(GranuleError):
    """A delivery's record is damaged: it can be neither shown nor sent."""

    code = "delivery_unreadable"


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    """To be tried, for the first time or again."""
    DELIVERED = "delivered"
    """The receiver answered 2xx."""
    DEAD = "dead"
    """Given up; it can be sent again by hand."""


class Reaction(StrEnum):
    """What a try showed of the receiver, whatever it means for the delivery."""

    ANSWERED = "1"
    """It answered, with whatever status."""
    SILENT = "0"
    """It was not reached, or did not answer in time."""
    UNASKED = ""
    """Nothing was sent."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook message for one event of one job.

    `record` is the job's record as it was when the event happened; `body` the bytes that were sent first and are sent again at
    every try, None before the first; `seq` counts the messages of one job from 1; `attempts` how often it was tried since it
    was last set off; `note` what came of the last try; `tries` the last tries' times (ms since 1970) and notes.
    """

    id: str
    job_id: str
    event: Event
    seq: int
    url: str
    state: DeliveryState
    attempts: int
    created_ms: int
    record: str
    body: bytes | None = None
    note: str | None = None
    tries: tuple[tuple[int, str], ...] = ()

    @property
    def message_id(self) -> str:
        """The `webhook-id`: unique to the message and the same at every try."""
        return f"msg_{self.id}"

    @property
    def job(self) -> Job:
        """The job as it was when the event happened. Raises DeliveryUnreadable."""
        try:
            flat = json.loads(self.record)
            return Job.from_fields(dict(zip(flat[::2], flat[1::2], strict=True)))
        except (ValueError, KeyError, TypeError) as error:
            raise DeliveryUnreadable(f"delivery {self.id} holds no job that can be read") from error

    @classmethod
    def from_fields(cls, delivery_id: str, fields: Mapping[str, str]) -> Delivery:
        """Build from the fields of the Redis hash. Raises DeliveryUnreadable."""
        body = fields.get("body")
        try:
            return cls(
                id=delivery_id,
                job_id=fields["job"],
                event=Event(fields["event"]),
                seq=int(fields["seq"]),
                url=fields["url"],
                state=DeliveryState(fields["state"]),
                attempts=int(fields["attempts"]),
                created_ms=int(fields["created_ms"]),
                record=fields["record"],
                body=None if body is None else body.encode(),
                note=fields.get("note"),
                tries=tuple((int(at_ms), str(note)) for at_ms, note in json.loads(fields.get("tries", "[]"))),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DeliveryUnreadable(f"delivery {delivery_id} cannot be read") from error


class Outbox:
    """Deliveries on one Redis. Methods raise StoreUnavailable when Redis does not answer; every call can be repeated."""

    def __init__(self, redis: Redis, *, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._scripts = Scripts(redis, prelude="outbox_prelude")

    # -- for couriers

    def take_due(self, *, limit: int, hold_s: float, at_once: int = AT_ONCE) -> list[str]:
        """Return deliveries whose time has come; for `hold_s` seconds nobody else is given them.

        No receiver gets more than `at_once` of the places, and one that does not answer gets a single place now and then:
        whoever hangs delays nobody else.
        """
        hold_ms, patience_ms = int(hold_s * 1000), int(SILENT_PATIENCE_S * 1000)
        return cast("list[str]", self._run("take_due", limit, hold_ms, at_once, SILENT_AFTER, patience_ms))

    def get(self, delivery_id: str) -> Delivery | None:
        """Return a delivery, or None when it was delivered long ago and is forgotten. Raises DeliveryUnreadable."""
        with answering():
            fields = cast("dict[str, str]", self._redis.hgetall(self._key(delivery_id)))
        return Delivery.from_fields(delivery_id, fields) if fields else None

    def fix_body(self, delivery_id: str, body: bytes) -> bytes:
        """Keep the first body ever rendered for a delivery, and return the kept one."""
        with answering():
            self._redis.hsetnx(self._key(delivery_id), "body", body.decode())
            return cast("str", self._redis.hget(self._key(delivery_id), "body")).encode()

    def settle(
        self,
        delivery: Delivery,
        state: DeliveryState,
        *,
        note: str,
        retry_s: float = 0.0,
        reaction: Reaction = Reaction.ANSWERED,
    ) -> None:
        """Record one try; with `pending` the next one follows after `retry_s` seconds."""
        self._run(
            "settle", delivery.id, delivery.attempts, state, int(retry_s * 1000), note, KEEP_DELIVERED_S * 1000,
            reaction, SILENT_AFTER, int(SILENT_PAUSE_S * 1000),
        )  # fmt: skip

    def discard(self, delivery_id: str, *, note: str) -> None:
        """Give up a delivery that cannot be read or rendered; without this it would come round for ever."""
        self._run("discard", delivery_id, note)

    # -- for people

    def of_job(self, job_id: str) -> list[Delivery]:
        """Every delivery of a job that is still remembered, in the order of their events."""
        with answering():
            count = int(cast("str | None", self._redis.hget(f"{self._prefix}job:{job_id}", "deliveries")) or 0)
        return self._read([f"{job_id}.{n}" for n in range(1, count + 1)])

    def dead(self, *, limit: int = 100) -> tuple[int, list[Delivery]]:
        """Count the dead deliveries, and return up to `limit` of them, the longest dead first."""
        key = f"{self._prefix}deliveries:dead"
        with answering():
            count = self._redis.zcard(key)
            ids = cast("list[str]", self._redis.zrange(key, 0, limit - 1))
        return count, self._read(ids)

    def redeliver(self, delivery_id: str) -> None:
        """Send a delivery again, with all its tries before it: the same body, the same `webhook-id`.

        Raises:
            NotFound: there is no such delivery, or it is forgotten.
        """
        if not self._run("redeliver", delivery_id):
            raise NotFound(f"no delivery {delivery_id!r}", field="delivery_number")

    def redeliver_dead(self, *, limit: int = 1000) -> int:
        """Send up to `limit` dead deliveries again, the longest dead first. Returns how many."""
        with answering():
            ids = cast("list[str]", self._redis.zrange(f"{self._prefix}deliveries:dead", 0, limit - 1))
        return int(self._run("redeliver", *ids)) if ids else 0

    # -- inside

    def _read(self, ids: Sequence[str]) -> list[Delivery]:
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            for delivery_id in ids:
                pipe.hgetall(self._key(delivery_id))
            records = cast("list[dict[str, str]]", pipe.execute())
        found = []
        for delivery_id, fields in zip(ids, records, strict=True):
            try:
                found += [Delivery.from_fields(delivery_id, fields)] if fields else []
            except DeliveryUnreadable as error:
                log.warning("left out of a list: %s", error)
        return found

    def _run(self, script: str, *args: str | int) -> Any:
        return self._scripts.run(script, self._prefix, *args)

    def _key(self, delivery_id: str) -> str:
        return f"{self._prefix}delivery:{delivery_id}"


def connect_outbox(settings: Settings, redis: Redis) -> Outbox:
    """Build the outbox as the settings say. Nothing is sent yet."""
    return Outbox(redis, prefix=settings.redis_prefix)
