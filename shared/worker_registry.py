"""Which render workers are alive: each shows itself every few seconds, and is forgotten when it stops."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from redis import Redis

from shared.redis_client import answering
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One live worker: its name, unique to one start of the process, the model it serves, and what it draws on.

    `busy_s` is how long it has drawn since its start, `starved_s` how long it did not although a job waited; `silence_s` is
    how long ago it last showed itself.
    """

    name: str
    model: str
    device: str
    busy_s: float = 0.0
    starved_s: float = 0.0
    silence_s: float = field(default=0.0, compare=False)

    @property
    def duty(self) -> float | None:
        """Of the time in which there was something to draw, the share spent drawing (0 to 1); None before the first job."""
        needed_s = self.busy_s + self.starved_s
        return self.busy_s / needed_s if needed_s else None


class WorkerRegistry:
    """Signs of life in Redis. Methods raise StoreUnavailable when Redis does not answer."""

    def __init__(self, redis: Redis, *, prefix: str, ttl_s: float) -> None:
        self._redis = redis
        self._prefix = prefix
        self._ttl_ms = int(ttl_s * 1000)

    def beat(self, info: WorkerInfo) -> None:
        """Show that a worker is ready to take jobs, for the next `ttl_s` seconds."""
        with answering():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(
                self._key(info.name),
                mapping={"model": info.model, "device": info.device, "busy_s": info.busy_s, "starved_s": info.starved_s},
            )
            pipe.pexpire(self._key(info.name), self._ttl_ms)
            pipe.sadd(self._prefix + "workers", info.name)
            pipe.execute()

    def leave(self, name: str) -> None:
        """Forget a worker that stops in good order."""
        with answering():
            self._redis.delete(self._key(name))
            self._redis.srem(self._prefix + "workers", name)

    def alive(self) -> list[WorkerInfo]:
        """Every worker that showed itself within the last `ttl_s` seconds, by name."""
        with answering():
            names = sorted(cast("set[str]", self._redis.smembers(self._prefix + "workers")))
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(self._key(name))
                pipe.pttl(self._key(name))
            replies = pipe.execute()
            gone = [name for name, fields in zip(names, replies[::2], strict=True) if not fields]
            if gone:
                self._redis.srem(self._prefix + "workers", *gone)
        return [
            WorkerInfo(
                name,
                fields["model"],
                fields["device"],
                float(fields.get("busy_s", 0)),
                float(fields.get("starved_s", 0)),
                max(0, self._ttl_ms - left_ms) / 1000,
            )
            for name, fields, left_ms in zip(names, replies[::2], replies[1::2], strict=True)
            if fields
        ]

    def _key(self, name: str) -> str:
        return f"{self._prefix}worker:{name}"


def connect_workers(settings: Settings, redis: Redis) -> WorkerRegistry:
    """Build the register as the settings say: a worker that missed three heartbeats counts as gone. Nothing is sent yet."""
    return WorkerRegistry(redis, prefix=settings.redis_prefix, ttl_s=settings.heartbeat_s * 3)
