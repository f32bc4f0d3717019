"""Rough pictures of jobs that are being drawn, kept in Redis for a minute: they belong to no record and to no result."""

from __future__ import annotations

import base64
import binascii
from typing import cast

from redis import Redis

from shared.redis_client import answering
from shared.settings import Settings

TTL_S = 60


class Previews:
    """The latest preview of each job that asked for them. Methods raise StoreUnavailable when Redis does not answer."""

    def __init__(self, redis: Redis, *, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix

    def put(self, job_id: str, picture: bytes) -> None:
        """Show a picture, a WebP file of a few KB, in place of the job's last one."""
        with answering():
            # As text: the connection is one for texts.
            self._redis.set(self._key(job_id), base64.b64encode(picture).decode(), ex=TTL_S)

    def get(self, job_id: str) -> bytes | None:
        """Return the latest picture of a job, or None: there is none yet, or none any more."""
        with answering():
            found = cast("str | None", self._redis.get(self._key(job_id)))
        try:
            return None if found is None else base64.b64decode(found, validate=True)
        except binascii.Error:
            return None

    def _key(self, job_id: str) -> str:
        return f"{self._prefix}preview:{job_id}"


def connect_previews(settings: Settings, redis: Redis) -> Previews:
    """Build it as the settings say. Nothing is sent yet."""
    return Previews(redis, prefix=settings.redis_prefix)
