"""Which render workers there are: each shows itself every few seconds, and is forgotten when it stops."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, cast

from redis import Redis

from shared.errors import NotFound
from shared.redis_client import answering
from shared.settings import Settings

DRAIN_TTL_S = 24 * 3600
"""How long an operator's word outlives a worker that neither came back nor stopped in good order."""


class Standing(StrEnum):
    """What a worker is there for now."""

    READY = "ready"
    """It takes jobs."""
    STARTING = "starting"
    """Its model is being loaded."""
    DRAINING = "draining"
    """It was drained, and ends what it holds."""
    DRAINED = "drained"
    """It holds nothing and takes nothing until it is resumed; its process has ended, so its device is free."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Of a worker's GPU, in bytes: what is free, what there is, and the most that the worker ever took of it."""

    free_bytes: int
    total_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One live worker: its name, unique to one start of its guardian, the model it serves, and what it draws on.

    `device` is empty until it is known. `busy_s` is how long it has drawn since its start, `starved_s` how long it did not
    although a job waited; `memory` is None on a CPU; `silence_s` is how long ago it last showed itself.
    """

    name: str
    model: str
    device: str
    busy_s: float = 0.0
    starved_s: float = 0.0
    silence_s: float = field(default=0.0, compare=False)
    standing: Standing = Standing.READY
    memory: DeviceMemory | None = None

    @property
    def duty(self) -> float | None:
        """Of the time in which there was something to draw, the share spent drawing (0 to 1); None before the first job."""
        needed_s = self.busy_s + self.starved_s
        return self.busy_s / needed_s if needed_s else None


class WorkerRegistry:
    """Signs of life in Redis. Methods raise StoreUnavailable when Redis does not answer.

    Workers that take jobs and all others are two sets, so that whoever counts the former need not look at each.
    """

    def __init__(self, redis: Redis, *, prefix: str, ttl_s: float) -> None:
        self._redis = redis
        self._prefix = prefix
        self._ttl_ms = int(ttl_s * 1000)
        self._ready, self._resting = prefix + "workers", prefix + "workers:resting"

    def beat(self, info: WorkerInfo) -> bool:
        """Show a worker, for the next `ttl_s` seconds. Returns whether an operator wants it drained."""
        here, elsewhere = self._ready, self._resting
        if info.standing is not Standing.READY:
            here, elsewhere = elsewhere, here
        with answering():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(self._key(info.name), mapping=_fields(info))
            pipe.pexpire(self._key(info.name), self._ttl_ms)
            pipe.sadd(here, info.name)
            pipe.srem(elsewhere, info.name)
            pipe.expire(self._drain_key(info.name), DRAIN_TTL_S)
            return bool(pipe.execute()[-1])

    def leave(self, name: str) -> None:
        """Forget a worker whose process has ended. Whether it is drained is not forgotten: another one will be started."""
        with answering():
            self._redis.delete(self._key(name))
            for listing in (self._ready, self._resting):
                self._redis.srem(listing, name)

    def retire(self, name: str) -> None:
        """Forget a worker whose guardian stops in good order."""
        self.leave(name)
        with answering():
            self._redis.delete(self._drain_key(name))

    def alive(self) -> list[WorkerInfo]:
        """Every worker that takes jobs and showed itself within the last `ttl_s` seconds, by name."""
        return self._listed(self._ready)

    def everybody(self) -> list[WorkerInfo]:
        """The same and those that take none now, by name. An operator's word counts before the worker has heard it."""
        found = [*self.alive(), *self._listed(self._resting)]
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            for info in found:
                pipe.exists(self._drain_key(info.name))
            wanted = pipe.execute()
        heard = [_heard(info, drain=bool(drain)) for info, drain in zip(found, wanted, strict=True)]
        return sorted(heard, key=lambda info: info.name)

    def drain(self, name: str) -> None:
        """Have a worker end what it holds and take nothing more until it is resumed. Raises NotFound."""
        self._check(name)
        with answering():
            self._redis.set(self._drain_key(name), "1", ex=DRAIN_TTL_S)

    def resume(self, name: str) -> None:
        """Have a drained worker take jobs again. Raises NotFound."""
        self._check(name)
        with answering():
            self._redis.delete(self._drain_key(name))

    # -- inside

    def _check(self, name: str) -> None:
        with answering():
            if not self._redis.exists(self._key(name)):
                raise NotFound(f"no worker {name!r} shows itself", field="worker")

    def _listed(self, listing: str) -> list[WorkerInfo]:
        with answering():
            names = sorted(cast("set[str]", self._redis.smembers(listing)))
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(self._key(name))
                pipe.pttl(self._key(name))
            replies = pipe.execute()
            seen = list(zip(names, replies[::2], replies[1::2], strict=True))
            self._forget(listing, [name for name, fields, _ in seen if not fields])
        return [_info(name, fields, max(0, self._ttl_ms - left_ms) / 1000) for name, fields, left_ms in seen if fields]

    def _forget(self, listing: str, gone: Iterable[str]) -> None:
        if names := list(gone):
            self._redis.srem(listing, *names)

    def _key(self, name: str) -> str:
        return f"{self._prefix}worker:{name}"

    def _drain_key(self, name: str) -> str:
        return f"{self._prefix}drain:{name}"


def connect_workers(settings: Settings, redis: Redis) -> WorkerRegistry:
    """Build the register as the settings say: a worker that missed three heartbeats counts as gone. Nothing is sent yet."""
    return WorkerRegistry(redis, prefix=settings.redis_prefix, ttl_s=settings.heartbeat_s * 3)


def _heard(info: WorkerInfo, *, drain: bool) -> WorkerInfo:
    standing = info.standing
    if drain and standing in (Standing.READY, Standing.STARTING):
        standing = Standing.DRAINING
    elif not drain and standing in (Standing.DRAINING, Standing.DRAINED):
        standing = Standing.STARTING
    return replace(info, standing=standing)


def _fields(info: WorkerInfo) -> Mapping[Any, Any]:
    return {
        "model": info.model,
        "device": info.device,
        "busy_s": info.busy_s,
        "starved_s": info.starved_s,
        "standing": info.standing,
        "memory": json.dumps(asdict(info.memory)) if info.memory else "",
    }


def _info(name: str, fields: Mapping[str, str], silence_s: float) -> WorkerInfo:
    """Read what `_fields` wrote, or an older version, which knew neither standing nor memory, or a newer, which knows more."""
    standing = fields.get("standing", Standing.READY)
    return WorkerInfo(
        name,
        fields["model"],
        fields["device"],
        float(fields.get("busy_s", 0)),
        float(fields.get("starved_s", 0)),
        silence_s,
        # What is not known takes no jobs yet, as far as anybody can tell.
        Standing(standing) if standing in list(Standing) else Standing.STARTING,
        _memory(fields.get("memory")),
    )


def _memory(text: str | None) -> DeviceMemory | None:
    if not text:
        return None
    told: dict[str, int] = json.loads(text)
    return DeviceMemory(told["free_bytes"], told["total_bytes"], told["peak_bytes"])
