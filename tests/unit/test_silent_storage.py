"""A storage that accepts connections and says nothing: it holds a few threads of the API, and the others answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import fakeredis
import pytest
from flask import Flask
from pydantic import SecretStr

from api.places import PATIENCE_S, READS_MAX
from api.readiness import UNANSWERED
from api.server import create_app
from shared.job_store import JobStore
from shared.settings import Settings
from shared.storage import connect_storage
from shared.worker_registry import WorkerInfo, WorkerRegistry
from tests.contracts.jobs import MODEL, new_result, new_spec


@pytest.fixture
def redis() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis(decode_responses=True)


@pytest.fixture
def store(redis: fakeredis.FakeRedis) -> JobStore:
    return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def app(redis: fakeredis.FakeRedis, store: JobStore, silent: socket.socket) -> Flask:
    settings = Settings(
        s3_endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}",
        s3_access_key_id=SecretStr("id"),
        s3_secret_access_key=SecretStr("secret"),
    )
    workers = WorkerRegistry(redis, prefix="test:", ttl_s=15)
    workers.beat(WorkerInfo("w1", MODEL, "cpu"))
    return create_app(settings, store=store, enqueue=lambda *_, **__: None, storage=connect_storage(settings), workers=workers)


def asked_by_others(app: Flask, path: str, number: int) -> list[threading.Thread]:
    """Requests that the storage holds."""
    threads = [threading.Thread(target=lambda: app.test_client().get(path)) for _ in range(number)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert all(thread.is_alive() for thread in threads)
    return threads


def let_go(silent: socket.socket, threads: list[threading.Thread]) -> None:
    """Take the storage away, which is told at once."""
    silent.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_pictures_that_cannot_be_had_hold_few_threads(app: Flask, store: JobStore, silent: socket.socket) -> None:
    spec = new_spec()
    store.create(spec, body_hash="h", queue_max_jobs=10)
    store.claim(spec.id, worker="w", delivery_token="1")
    store.succeed(spec.id, 1, new_result())
    path, client = f"/v1/files/{spec.file_token}/tile.png", app.test_client()
    held = asked_by_others(app, path, READS_MAX)
    for limit_s in (PATIENCE_S + 0.5, 0.5):
        began_s = time.monotonic()
        refused = client.get(path)
        assert time.monotonic() - began_s < limit_s
        assert (refused.status_code, refused.json["code"]) == (503, "storage_unavailable")
        assert refused.headers["Retry-After"]
    let_go(silent, held)
    assert "too many" not in client.get(path).json["detail"]


def test_readiness_is_asked_by_one_and_answered_to_all(app: Flask, silent: socket.socket) -> None:
    client = app.test_client()
    held = asked_by_others(app, "/readyz", 1)
    began_s = time.monotonic()
    meanwhile = [client.get("/readyz") for _ in range(20)]
    assert time.monotonic() - began_s < 1
    assert {answer.status_code for answer in meanwhile} == {503}
    found = meanwhile[-1].json
    assert (found["ready"], found["redis"], found["storage"], found["workers"][MODEL]) == (False, "ok", UNANSWERED, 1)
    let_go(silent, held)
    assert client.get("/readyz").json["storage"] == "the object storage does not answer"
