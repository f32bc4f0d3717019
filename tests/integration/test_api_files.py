"""Pictures over HTTP, and readiness, with a real Redis and a real S3."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests
from flask.testing import FlaskClient
from pydantic import SecretStr
from redis import Redis

from api.readiness import FRESH_S
from api.server import create_app
from infra.local.ports import free_block
from shared.job_store import JobStore, connect_store
from shared.jobs import Job, Output, Result
from shared.redis_client import connect
from shared.settings import Settings
from shared.storage import Storage, connect_storage, output_key
from shared.worker_registry import WorkerInfo, WorkerRegistry
from tests.contracts.jobs import MODEL, new_spec
from tests.integration.conftest import S3Location

PICTURE = bytes(range(256)) * 512


@dataclass(frozen=True)
class Parts:
    settings: Settings
    redis: Redis
    store: JobStore
    storage: Storage
    client: FlaskClient


@pytest.fixture
def parts(redis_url: str, s3: S3Location) -> Iterator[Parts]:
    """The API with tokens, so that what is public here is so by itself."""
    settings = s3.settings(Settings(redis_url=redis_url, api_tokens=(SecretStr("shop:shop-token"),)))
    with connect(redis_url, timeout_s=5) as redis:
        app = create_app(settings)
        yield Parts(settings, redis, connect_store(settings, redis), connect_storage(settings), app.test_client())


def finish(parts: Parts) -> tuple[Job, str]:
    """A job with its picture in storage, and the path that the picture is served at."""
    spec = new_spec(filename="2026-11-22_tile_seed42.png")
    parts.store.create(spec, body_hash=spec.id, queue_max_jobs=100)
    job = parts.store.claim(spec.id, worker="w", delivery_token="d")
    assert job is not None
    key = output_key(job.id, job.fence, 0, "png")
    parts.storage.put(key, PICTURE, content_type="image/png", metadata={})
    output = Output(key, spec.filename, "image/png", len(PICTURE), hashlib.sha256(PICTURE).hexdigest())
    parts.store.succeed(job.id, job.fence, Result([output], 1.0))
    return parts.store.get(job.id), f"/v1/files/{spec.file_token}/{spec.filename}"


def test_a_picture_needs_no_token_and_bears_a_foreign_one(parts: Parts) -> None:
    _, path = finish(parts)
    for headers in ({}, {"Authorization": "Bearer of-somebody-else"}):
        answer = parts.client.get(path, headers=headers)
        assert (answer.status_code, answer.data) == (200, PICTURE)
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["Content-Length"] == str(len(PICTURE))
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Content-Disposition"] == 'inline; filename="2026-11-22_tile_seed42.png"'


def test_head_says_the_same_without_the_bytes(parts: Parts) -> None:
    _, path = finish(parts)
    got, head = parts.client.get(path), parts.client.head(path)
    own = {"X-Request-Id"}
    assert {(k, v) for k, v in head.headers if k not in own} == {(k, v) for k, v in got.headers if k not in own}
    assert head.data == b""


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-1999", 1000, 2000),
        ("bytes=131000-", 131_000, 131_072),
        ("bytes=-72", 131_000, 131_072),
    ],
)
def test_a_part_of_a_picture(parts: Parts, wanted: str, first: int, end: int) -> None:
    _, path = finish(parts)
    part = parts.client.get(path, headers={"Range": wanted})
    assert (part.status_code, part.data) == (206, PICTURE[first:end])
    assert part.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(PICTURE)}"
    assert part.headers["Content-Length"] == str(end - first)


def test_ranges_that_are_passed_over_and_one_that_cannot_be_met(parts: Parts) -> None:
    _, path = finish(parts)
    for headers in ({"Range": "bytes=0-1,5-6"}, {"Range": "lines=1-2"}, {"Range": "bytes=0-9", "If-Range": '"old"'}):
        assert parts.client.get(path, headers=headers).status_code == 200
    refused = parts.client.get(path, headers={"Range": f"bytes={len(PICTURE)}-"})
    assert (refused.status_code, refused.headers["Content-Range"]) == (416, f"bytes */{len(PICTURE)}")


def test_what_the_caller_has_is_not_sent_again(parts: Parts) -> None:
    _, path = finish(parts)
    etag = parts.client.get(path).headers["ETag"]
    for header in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        same = parts.client.get(path, headers={"If-None-Match": header})
        assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", etag)
    assert parts.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_pages_of_any_origin_may_ask(parts: Parts) -> None:
    _, path = finish(parts)
    allowed = parts.client.options(path, headers={"Origin": "https://shop.example.com"})
    assert allowed.headers["Access-Control-Allow-Origin"] == "*"
    assert "Authorization" in allowed.headers["Access-Control-Allow-Headers"]


def test_the_storage_may_send_pictures_itself(parts: Parts) -> None:
    job, path = finish(parts)
    settings = parts.settings.model_copy(update={"s3_redirect_url": parts.settings.s3_endpoint_url})
    client = create_app(settings).test_client()
    sent = client.get(path)
    assert (sent.status_code, sent.headers["Cache-Control"]) == (302, "no-store")
    assert sent.headers["Access-Control-Allow-Origin"] == "*"
    with requests.Session() as session:
        session.trust_env = False
        picture = session.get(sent.headers["Location"], headers={"Range": "bytes=0-99"}, timeout=10)
    assert (picture.status_code, picture.content) == (206, PICTURE[:100])
    for header in ("Content-Type", "Content-Disposition"):
        assert picture.headers[header] == parts.client.head(path).headers[header]
    head = client.head(path)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(PICTURE)))
    assert client.get(path, headers={"If-None-Match": sent.headers["ETag"]}).status_code == 304
    assert parts.settings.s3_endpoint_url in client.get("/").headers["Content-Security-Policy"]
    parts.store.remove_data(job)
    assert client.get(path).status_code == 410


def test_what_never_was_and_what_is_no_more(parts: Parts) -> None:
    job, path = finish(parts)
    for wrong in (path.replace("seed42", "seed43"), f"/v1/files/unknown/{job.spec.filename}"):
        assert parts.client.get(wrong).status_code == 404
    assert job.result is not None
    parts.storage.delete(job.result.outputs[0].key)
    assert parts.client.get(path).status_code == 404
    parts.store.remove_data(job)
    gone = parts.client.get(path)
    assert (gone.status_code, gone.json["code"]) == (410, "gone")
    row = parts.client.get(f"/v1/predictions/{job.id}", headers={"Authorization": "Bearer shop-token"}).json
    assert (row["status"], row["output"], row["input"], row["data_removed"]) == ("succeeded", None, {}, True)


def test_a_picture_that_is_not_ready_is_not_found(parts: Parts) -> None:
    spec = new_spec()
    parts.store.create(spec, body_hash="h", queue_max_jobs=100)
    assert parts.client.get(f"/v1/files/{spec.file_token}/{spec.filename}").status_code == 404


def test_ready_when_both_servers_answer_and_a_worker_lives(parts: Parts) -> None:
    waiting = parts.client.get("/readyz")
    assert (waiting.status_code, waiting.json["ready"], waiting.json["workers"][MODEL]) == (503, False, 0)
    WorkerRegistry(parts.redis, prefix=parts.settings.redis_prefix, ttl_s=15).beat(WorkerInfo("w1", MODEL, "cpu"))
    time.sleep(FRESH_S)
    ready = parts.client.get("/readyz")
    assert (ready.status_code, ready.json["ready"], ready.json["workers"][MODEL]) == (200, True, 1)


def test_not_ready_without_the_bucket_or_without_redis(parts: Parts) -> None:
    no_bucket = create_app(parts.settings.model_copy(update={"s3_bucket": "not-there"})).test_client()
    answer = no_bucket.get("/readyz")
    assert (answer.status_code, answer.json["redis"]) == (503, "ok")
    assert "NoSuchBucket" in answer.json["storage"]
    nobody = f"redis://127.0.0.1:{free_block(1)[0]}/0"
    no_redis = create_app(parts.settings.model_copy(update={"redis_url": nobody})).test_client()
    answer = no_redis.get("/readyz")
    assert (answer.status_code, answer.json["redis"], answer.json["storage"]) == (503, "the job store does not answer", "ok")
    assert no_redis.get("/healthz").status_code == 200
