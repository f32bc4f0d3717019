"""Real servers for a measurement: Redis and S3 of the local stack, in a folder of their own, on free ports."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from infra.local.ports import free_block
from infra.local.redis_server import RedisServer
from infra.local.s3_server import PORT_COUNT, S3Server
from infra.local.supervisor import Supervisor
from shared.settings import Settings


@contextmanager
def running_servers(folder: Path, *, appendfsync: Literal["always", "everysec", "no"], s3: bool = True) -> Iterator[Settings]:
    """Settings that point at servers which run inside the block; without `s3` there is Redis only."""
    redis = RedisServer(
        directory=folder / "redis", port=free_block(1)[0], password=secrets.token_hex(8), appendfsync=appendfsync
    )
    storage = S3Server(
        directory=folder / "s3",
        ports=free_block(PORT_COUNT),
        bucket="granule",
        access_key_id=secrets.token_hex(10),
        secret_access_key=secrets.token_hex(20),
    )
    programs = [redis.program(os.environ), *([storage.program(os.environ)] if s3 else [])]
    (folder / "run").mkdir()
    with Supervisor(programs, folder=folder / "run", write_line=lambda name, line: None) as supervisor:
        supervisor.start()
        yield Settings(
            redis_url=redis.url,
            s3_endpoint_url=storage.endpoint_url,
            s3_bucket=storage.bucket,
            s3_access_key_id=SecretStr(storage.access_key_id),
            s3_secret_access_key=SecretStr(storage.secret_access_key),
        )


def environment(settings: Settings, **extra: str) -> dict[str, str]:
    """The variables that make a process read these settings and no others."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GRANULE_")}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        variables[f"GRANULE_{name.upper()}"] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return variables | extra
