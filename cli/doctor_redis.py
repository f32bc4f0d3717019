"""The doctor on Redis: reachable, new enough, writable, durable, never evicting, and with a clock like ours."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from cli.findings import Finding, ok, warning, wrong
from shared.redis_client import connect
from shared.settings import Settings

SUBJECT = "redis"
VERSION_FLOOR = (6, 2)
CLOCK_WARNING_S = 60.0
SLOW_MS = 20.0
FULL_FRACTION = 0.8
PROBE_MS = 10_000


def check_redis(settings: Settings) -> Iterator[Finding]:
    """Ask the server that the settings name, and write one key for a moment."""
    address = _without_password(settings.redis_url)
    try:
        client = connect(settings.redis_url, timeout_s=settings.redis_timeout_s, sentinels=settings.redis_sentinels)
    except ValueError as error:
        yield wrong(SUBJECT, f"REDIS_URL is no address: {error}", "write redis://:PASSWORD@HOST:6379/0, or rediss:// for TLS")
        return
    try:
        with client:
            yield from _check_server(client, settings, address)
    except (AuthenticationError, NoPermissionError) as error:
        yield wrong(
            SUBJECT, f"{address} refuses us: {error}", "correct user and password in REDIS_URL; the user needs all commands"
        )
    except (RedisError, OSError) as error:
        yield wrong(
            SUBJECT, f"{address} does not answer: {error}", "start it, or correct REDIS_URL; ./granule up brings its own"
        )


def _check_server(client: Redis, settings: Settings, address: str) -> Iterator[Finding]:
    took_ms = min(_ping_ms(client) for _ in range(5))
    facts = client.info()
    name = "Valkey" if facts.get("server_name") == "valkey" else "Redis"
    shown = facts.get("valkey_version", facts["redis_version"])
    version = tuple(int(part) for part in re.findall(r"\d+", str(facts["redis_version"]))[:2])
    if version < VERSION_FLOOR:
        yield wrong(SUBJECT, f"{address} is {name} {shown}", "install 6.2 or newer, or Valkey")
    else:
        yield ok(SUBJECT, f"{name} {shown} at {address} answers in {took_ms:.1f} ms")
    if took_ms > SLOW_MS:
        yield warning(
            SUBJECT, f"it takes {took_ms:.0f} ms to answer", "put it near the API and the workers; each job asks it often"
        )
    if facts.get("cluster_enabled"):
        yield wrong(SUBJECT, "it is a cluster", "use one server, or Sentinel: a script here touches keys of several slots")
    if facts.get("role") not in ("master", None):
        yield wrong(SUBJECT, f"it is a {facts['role']}, which takes no writes", "name the primary in REDIS_URL")
    yield _check_write(client, settings)
    yield from _check_memory(facts)
    yield from _check_durability(client, facts)
    yield _check_clock(client)


def _check_write(client: Redis, settings: Settings) -> Finding:
    key, value = f"{settings.redis_prefix}doctor:{secrets.token_hex(8)}", secrets.token_hex(8)
    script = "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return redis.call('GET', KEYS[1])"
    try:
        back = client.eval(script, 1, key, value, str(PROBE_MS))
        client.delete(key)
    except ResponseError as error:
        return wrong(SUBJECT, f"it runs no script that writes: {error}", "allow EVAL and EVALSHA, and make it writable")
    if back != value:
        return wrong(SUBJECT, "a value that was written reads otherwise", "look for a proxy between")
    return ok(SUBJECT, "a script wrote a key, read it and removed it")


def _check_memory(facts: dict[str, Any]) -> Iterator[Finding]:
    policy, limit, used = facts.get("maxmemory_policy"), facts.get("maxmemory", 0), facts.get("used_memory", 0)
    if policy != "noeviction":
        cure = "set maxmemory-policy noeviction: an evicted key is a lost job"
        yield (wrong if limit else warning)(SUBJECT, f"maxmemory-policy is {policy}", cure)
    else:
        yield ok(SUBJECT, "maxmemory-policy is noeviction")
    if limit and used > FULL_FRACTION * limit:
        yield warning(SUBJECT, f"{used / limit:.0%} of its memory is used", "raise maxmemory, or shorten GRANULE_RETENTION_S")


def _check_durability(client: Redis, facts: dict[str, Any]) -> Iterator[Finding]:
    if facts.get("aof_enabled"):
        yield ok(SUBJECT, f"append-only file on, appendfsync {_configured(client, 'appendfsync')}")
        if facts.get("aof_last_write_status", "ok") != "ok":
            yield wrong(SUBJECT, "its last write to the append-only file failed", "look at its disk and its log")
    else:
        yield warning(
            SUBJECT,
            "no append-only file: a crash loses every job since the last snapshot",
            "set appendonly yes; it can be done while it runs",
        )
    if facts.get("loading"):
        yield warning(SUBJECT, "it still reads its data", "wait")


def _configured(client: Redis, name: str) -> str:
    try:
        return str(cast("dict[str, str]", client.config_get(name)).get(name, "unknown"))
    except RedisError:
        return "unknown, since it does not tell"


def _check_clock(client: Redis) -> Finding:
    seconds, micros = client.time()
    off_s = abs(time.time() - (seconds + micros / 1e6))
    if off_s > CLOCK_WARNING_S:
        return warning("clock", f"ours and Redis's are {off_s:.0f} s apart", "synchronise both: timedatectl set-ntp true")
    return ok("clock", f"ours and Redis's are {off_s:.1f} s apart")


def _ping_ms(client: Redis) -> float:
    started_s = time.perf_counter()
    client.ping()
    return (time.perf_counter() - started_s) * 1000


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname or url}{f':{parts.port}' if parts.port else ''}{parts.path}"
