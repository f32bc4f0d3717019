"""Which servers the settings mean: those that they name, else those that the local stack brings and runs."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pydantic import SecretStr

from cli.findings import Finding, note, wrong
from infra.local.credentials import load_credentials
from infra.local.ports import is_free
from infra.local.redis_server import RedisServer, find_redis_server
from infra.local.s3_server import PORT_COUNT, S3Server, find_weed
from shared.errors import SettingsInvalid
from shared.settings import Settings


def names_redis(settings: Settings) -> bool:
    """Whether a Redis is named, so that none is brought."""
    return "redis_url" in settings.model_fields_set


def names_storage(settings: Settings) -> bool:
    """Whether a storage is named. Without an address that is AWS, unless Redis is not named either."""
    return settings.s3_endpoint_url is not None or names_redis(settings) or settings.s3_access_key_id is not None


def with_local_servers(settings: Settings) -> Settings:
    """Return the settings with the addresses and keys of the local stack's servers, where those are meant and run."""
    folder = settings.data_dir.resolve()
    try:
        first = int((folder / "ports").read_text())
        credentials = load_credentials(folder / "credentials.json") if (folder / "credentials.json").exists() else None
    except (OSError, ValueError, SettingsInvalid):
        return settings
    if credentials is None:
        return settings
    update: dict[str, object] = {}
    if not names_redis(settings) and not is_free(first):
        redis = RedisServer(directory=folder / "redis", port=first, password=credentials.redis_password)
        update["redis_url"] = redis.url
    if not names_storage(settings) and not is_free(first + 1):
        s3 = S3Server(
            directory=folder / "s3",
            ports=range(first + 1, first + 1 + PORT_COUNT),
            bucket=settings.s3_bucket,
            access_key_id=credentials.s3_access_key_id,
            secret_access_key=credentials.s3_secret_access_key,
        )
        update["s3_endpoint_url"] = s3.endpoint_url
        update["s3_access_key_id"] = SecretStr(s3.access_key_id)
        update["s3_secret_access_key"] = SecretStr(s3.secret_access_key)
    return settings.model_copy(update=update)


def check_brought(settings: Settings) -> Iterator[Finding]:
    """Say of servers that are not named and do not run whether ./granule up could start them."""
    finders = {"redis": (names_redis(settings), find_redis_server), "s3": (names_storage(settings), find_weed)}
    path = os.environ.get("PATH")
    for subject, (named, find) in finders.items():
        if named:
            continue
        try:
            yield note(subject, f"none is named and the local stack does not run; ./granule up starts {find(path)}")
        except SettingsInvalid as error:
            yield wrong(subject, "none is named, and the local stack could start none", error.detail)
