"""The connection to Redis, and the one place where its failures become ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import BlockingConnectionPool, Redis
from redis.backoff import ConstantBackoff
from redis.connection import parse_url
from redis.exceptions import ExecAbortError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from shared.errors import StoreUnavailable
from shared.metrics import REDIS_ERRORS

LUA = Path(__file__).parent / "lua"
MAX_CONNECTIONS = 64
PASSING_REFUSALS = ("OOM ", "READONLY", "MISCONF", "NOREPLICAS", "LOADING", "BUSY ", "UNBLOCKED", "MASTERDOWN", "CLUSTERDOWN")
"""Starts of error replies that tell of the server's state and not of the command: full, a replica, still loading, ..."""
PASSING_ERRORS = (OutOfMemoryError, ReadOnlyError, ExecAbortError)
"""Those of which redis-py makes a class and takes the start off, and a transaction that was refused for one of them."""


def connect(url: str, *, timeout_s: float, sentinels: Sequence[str] = ()) -> Redis:
    """Return a client whose every call ends within about `timeout_s` seconds. Nothing is sent yet.

    With `sentinels` (`host:port`) the host of `url` is the name of a master, and each new connection goes to the server that
    is it then. A call whose connection broke is sent a second time: every script here can be replayed.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 5,
        "decode_responses": True,
        "retry": Retry(ConstantBackoff(0.05), 1),
    }
    if not sentinels:
        pool = BlockingConnectionPool.from_url(url, max_connections=MAX_CONNECTIONS, timeout=timeout_s, **options)
        return Redis.from_pool(pool)
    master = parse_url(url)  # type: ignore[no-untyped-call]
    name = str(master.pop("host"))
    asked = Sentinel(  # type: ignore[no-untyped-call]
        [split_address(entry) for entry in sentinels],
        sentinel_kwargs={"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s},
    )
    pool_options = {"max_connections": MAX_CONNECTIONS, **options, **master}
    return Redis.from_pool(SentinelConnectionPool(name, asked, **pool_options))  # type: ignore[no-untyped-call]


def split_address(entry: str) -> tuple[str, int]:
    """Split `host:port`, which the settings have checked."""
    host, _, port = entry.rpartition(":")
    return host, int(port)


def is_passing(error: ResponseError) -> bool:
    """Whether an error reply tells of the server's state (full, a replica, still loading, ...) and not of the command."""
    return isinstance(error, PASSING_ERRORS) or any(refusal in str(error) for refusal in PASSING_REFUSALS)


@contextmanager
def answering() -> Iterator[None]:
    """Turn a Redis that does not answer or cannot do as asked into StoreUnavailable. A failing script is a bug: it passes."""
    try:
        yield
    except ResponseError as error:
        if not is_passing(error):
            raise
        REDIS_ERRORS.labels("refused").inc()
        raise StoreUnavailable(f"the job store refuses: {error}") from error
    except (RedisError, OSError) as error:
        REDIS_ERRORS.labels("unreachable").inc()
        raise StoreUnavailable("the job store does not answer") from error


class Scripts:
    """The Lua scripts of `shared/lua/`, each sent to Redis once and then called by its hash."""

    def __init__(self, redis: Redis, *, prelude: str) -> None:
        self._redis = redis
        self._prelude = (LUA / f"{prelude}.lua").read_text(encoding="utf-8")
        self._loaded: dict[str, Any] = {}

    def run(self, name: str, *args: str | int) -> Any:
        """Run `name.lua` behind the prelude and return Redis's reply. Raises StoreUnavailable."""
        if name not in self._loaded:
            source = (LUA / f"{name}.lua").read_text(encoding="utf-8")
            self._loaded[name] = self._redis.register_script(self._prelude + source)
        with answering():
            return self._loaded[name](args=args)
