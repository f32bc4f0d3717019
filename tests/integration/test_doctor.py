"""The doctor at real servers that are set up badly."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from cli.doctor_redis import check_redis
from cli.doctor_storage import check_storage
from cli.findings import Finding, Level
from infra.local.redis_server import RedisServer
from infra.local.s3_server import S3Server
from shared.settings import Settings
from shared.storage import connect_storage
from tests.integration.conftest import S3Location


def bad(findings: Iterator[Finding]) -> list[str]:
    return [f"{f.level}: {f.detail} -> {f.cure}" for f in findings if f.level in (Level.WARNING, Level.WRONG)]


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    """The server, whose settings a test may change."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        kept = {name: client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy", "appendonly")}
        yield client
        for name, value in kept.items():
            client.config_set(name, value)
        client.acl_deluser("narrow")


def test_a_redis_that_is_well_is_left_as_it_was(redis_url: str, server: redis.Redis) -> None:
    assert bad(check_redis(Settings(redis_url=redis_url))) == []
    assert server.keys("*") == []


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("maxmemory-policy", "allkeys-lru", "warning: maxmemory-policy is allkeys-lru -> set maxmemory-policy noeviction"),
        ("appendonly", "no", "warning: no append-only file"),
        ("maxmemory", "1mb", "of its memory is used"),
    ],
)
def test_a_redis_that_will_lose_jobs(redis_url: str, server: redis.Redis, name: str, value: str, told: str) -> None:
    server.config_set(name, value)
    complaints = bad(check_redis(Settings(redis_url=redis_url)))
    assert any(told in complaint for complaint in complaints), complaints


def test_a_redis_that_refuses_us(redis_url: str, redis_server: RedisServer, server: redis.Redis) -> None:
    stranger = redis_url.replace(redis_server.password, "wrong")
    [complaint] = bad(check_redis(Settings(redis_url=stranger)))
    assert "refuses us" in complaint and "correct user and password" in complaint and "wrong@" not in complaint
    server.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+ping", "+info", "+client", "+hello", "+time")
    narrow = redis_url.replace(f":{redis_server.password}@", "narrow:pw@")
    assert any(
        "refuses us" in complaint or "runs no script" in complaint for complaint in bad(check_redis(Settings(redis_url=narrow)))
    )


def test_a_storage_that_is_well_is_left_as_it_was(s3: S3Location) -> None:
    settings = s3.settings(Settings())
    assert bad(check_storage(settings)) == []
    assert connect_storage(settings).keys("") == []


def test_a_bucket_that_removes_pictures_too_early(s3: S3Location, s3_server: S3Server) -> None:
    rule: dict[str, Any] = {"ID": "early", "Status": "Enabled", "Filter": {"Prefix": "outputs/"}, "Expiration": {"Days": 7}}
    client = s3_server.client()
    client.put_bucket_lifecycle_configuration(Bucket=s3.bucket, LifecycleConfiguration={"Rules": [rule]})  # type: ignore[typeddict-item]
    [complaint] = bad(check_storage(s3.settings(Settings(retention_s=8 * 86_400))))
    assert "removes objects after 7 days" in complaint and "more than 8 days" in complaint
    assert bad(check_storage(s3.settings(Settings(retention_s=6 * 86_400)))) == []
    client.delete_bucket_lifecycle(Bucket=s3.bucket)
    client.close()


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({"s3_bucket": f"nobody-{secrets.token_hex(4)}"}, "correct GRANULE_S3_BUCKET"),
        ({"s3_access_key_id": SecretStr("nobody")}, "correct GRANULE_S3_ACCESS_KEY_ID"),
        ({"s3_secret_access_key": SecretStr("wrong")}, "correct GRANULE_S3_SECRET_ACCESS_KEY"),
        ({"s3_endpoint_url": "http://127.0.0.1:9"}, "start it, or correct S3_ENDPOINT_URL"),
    ],
)
def test_a_storage_that_cannot_be_used(s3: S3Location, changes: dict[str, object], cure: str) -> None:
    [complaint] = bad(check_storage(s3.settings(Settings()).model_copy(update=changes)))
    assert complaint.startswith("wrong: bucket ") and cure in complaint
