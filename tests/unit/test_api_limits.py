"""How much one caller may order, and how large a request may be."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import fakeredis
import pytest
from flask.testing import FlaskClient
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis import Redis
from werkzeug.test import TestResponse

from api.limits import OrderLimits, connect_limits
from api.server import create_app
from api.tokens import Token, new_entry
from infra.local.ports import free_block
from shared.errors import RateLimited, StoreUnavailable
from shared.job_store import Created, JobStore
from shared.redis_client import connect
from shared.settings import Settings
from shared.worker_registry import WorkerRegistry
from tests.contracts.api import MIX, MODEL, idle_storage
from tests.contracts.jobs import new_spec

PER_MINUTE, WAITING = 3, 2
ENTRIES = {"shop": {}, "hasty": {"creates_per_minute": PER_MINUTE}, "full": {"max_waiting_jobs": WAITING}}


@pytest.fixture
def redis() -> Redis:
    return fakeredis.FakeRedis(decode_responses=True)


@pytest.fixture
def store(redis: Redis) -> JobStore:
    return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)


@pytest.fixture
def client(redis: Redis, store: JobStore, tmp_path: Path) -> FlaskClient:
    path = tmp_path / "tokens.toml"
    path.write_text("".join(new_entry(name, name, entry) for name, entry in ENTRIES.items()))
    storage = RedisStorage("redis://", connection_pool=redis.connection_pool)
    app = create_app(
        Settings(api_tokens_file=path),
        store=store,
        enqueue=lambda *_, **__: None,
        storage=idle_storage(),
        workers=WorkerRegistry(redis, prefix="test:", ttl_s=15),
        limits=OrderLimits(SlidingWindowCounterRateLimiter(storage)),
    )
    return app.test_client()


def order(client: FlaskClient, token: str, *, headers: dict[str, str] | None = None, **given: object) -> TestResponse:
    bearer = {"Authorization": f"Bearer {token}"} | (headers or {})
    return client.post("/v1/predictions", json={"version": MODEL, "input": {"prompt": MIX} | given}, headers=bearer)


def remaining(client: FlaskClient) -> int:
    return int(client.get("/v1/account", headers={"Authorization": "Bearer hasty"}).json["token"]["creates_remaining"])


def test_a_minute_has_so_many_orders(client: FlaskClient, store: JobStore) -> None:
    assert [order(client, "hasty").status_code for _ in range(PER_MINUTE)] == [201] * PER_MINUTE
    refused = order(client, "hasty")
    assert (refused.status_code, refused.json["code"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["Retry-After"]) == refused.json["retry_after"] <= 60
    assert refused.headers["x-should-retry"] == "true"
    assert refused.headers["ratelimit-limit"] == str(PER_MINUTE)
    assert refused.headers["ratelimit-remaining"] == "0"
    assert refused.headers["ratelimit-reset"] == refused.headers["Retry-After"]
    assert len(store.list_jobs("hasty")) == PER_MINUTE
    assert [order(client, "shop").status_code for _ in range(PER_MINUTE + 1)] == [201] * (PER_MINUTE + 1)


def test_what_is_refused_or_repeated_costs_nothing(client: FlaskClient, store: JobStore) -> None:
    key = {"Idempotency-Key": "order-17"}
    assert [order(client, "hasty", headers=key).status_code for _ in range(6)] == [201, 200, 200, 200, 200, 200]
    assert [order(client, "hasty", seed=7).status_code for _ in range(6)] == [201, 200, 200, 200, 200, 200]
    assert order(client, "hasty", seed="seven").status_code == 422
    assert order(client, "hasty", headers=key, seed=1).status_code == 422
    assert remaining(client) == PER_MINUTE - 2
    assert order(client, "hasty").status_code == 201
    assert [order(client, "hasty").status_code for _ in range(6)] == [429] * 6
    assert remaining(client) == 0
    assert len(store.list_jobs("hasty")) == PER_MINUTE


def test_a_repeat_is_answered_although_the_minute_is_used_up(client: FlaskClient) -> None:
    made = [order(client, "hasty", headers={"Idempotency-Key": f"{number}"}) for number in range(PER_MINUTE)]
    again = order(client, "hasty", headers={"Idempotency-Key": "0"})
    assert (again.status_code, again.json["id"]) == (200, made[0].json["id"])


def test_a_repeat_that_comes_while_the_first_is_being_recorded_is_answered(client: FlaskClient, store: JobStore) -> None:
    limits, token = client.application.extensions["granule"].limits, Token("once", "once", creates_per_minute=1)
    spec, refused, recorded = new_spec(), threading.Event(), threading.Event()

    def first(admitted: bool) -> Created:
        assert admitted and refused.wait(10)
        created = store.create(spec, body_hash="h", queue_max_jobs=10, idempotency_key="k")
        recorded.set()
        return created

    def repeat(admitted: bool) -> Created:
        if refused.is_set():
            assert recorded.wait(10)
        try:
            return store.create(new_spec(), body_hash="h", queue_max_jobs=10 * admitted, idempotency_key="k")
        finally:
            refused.set()

    thread = threading.Thread(target=lambda: limits.admit(token, first))
    thread.start()
    while limits.remaining(token):
        time.sleep(0.001)
    again = limits.admit(token, repeat, has_key=True)
    thread.join()
    assert (again.job_id, again.is_new) == (spec.id, False)
    with pytest.raises(RateLimited):
        limits.admit(token, lambda _: store.create(new_spec(), body_hash="h", queue_max_jobs=0), has_key=True)


def test_reading_and_calling_off_are_not_counted(client: FlaskClient) -> None:
    bearer = {"Authorization": "Bearer hasty"}
    made = [order(client, "hasty").json["id"] for _ in range(PER_MINUTE)]
    assert {client.get(f"/v1/predictions/{made[0]}", headers=bearer).status_code for _ in range(100)} == {200}
    assert client.post(f"/v1/predictions/{made[0]}/cancel", headers=bearer).status_code == 200
    assert order(client, "hasty").status_code == 429


def test_a_tenant_has_so_many_jobs_waiting(client: FlaskClient, store: JobStore, redis: Redis) -> None:
    made = [order(client, "full").json["id"] for _ in range(WAITING)]
    refused = order(client, "full")
    assert (refused.status_code, refused.json["code"]) == (429, "queue_full")
    assert refused.headers["Retry-After"].isdigit()
    assert order(client, "shop").status_code == 201
    claimed = store.claim(made[0], worker="w", delivery_token="1")
    assert claimed is not None
    assert order(client, "full").status_code == 201
    assert order(client, "full").status_code == 429
    store.release(claimed.id, claimed.fence)
    for job in store.list_jobs("full"):
        store.cancel(job.id)
    assert redis.scard("test:waiting:full") == 0
    assert order(client, "full").status_code == 201


def test_a_refusal_for_the_queue_costs_nothing_of_the_minute(client: FlaskClient, store: JobStore, tmp_path: Path) -> None:
    both = {"tenant": "both", "max_waiting_jobs": 1, "creates_per_minute": 2}
    (tmp_path / "tokens.toml").write_text(new_entry("both", "both", both))
    first = order(client, "both").json["id"]
    assert [order(client, "both").json["code"] for _ in range(6)] == ["queue_full"] * 6
    store.cancel(first)
    assert order(client, "both").status_code == 201


def test_without_redis_a_counted_order_is_a_503() -> None:
    settings = Settings(redis_url=f"redis://127.0.0.1:{free_block(1)[0]}/0")
    limits = connect_limits(settings, connect(settings.redis_url, timeout_s=0.2))
    with pytest.raises(StoreUnavailable):
        limits.admit(Token("shop", "shop", creates_per_minute=1), lambda _: pytest.fail("nothing may be recorded"))


@pytest.mark.parametrize("path", ["/healthz", "/v1/predictions", "/nothing"])
def test_headers_are_bounded_in_all(client: FlaskClient, path: str) -> None:
    refused = client.get(path, headers={"X-Small": "a" * 3_000, "X-Large": "a" * 14_000})
    assert (refused.status_code, refused.content_type) == (431, "application/problem+json")
    assert "X-Large" in refused.json["detail"]
    assert client.get("/healthz", headers={"X-Large": "a" * 14_000}).status_code == 200


def test_addresses_are_bounded(client: FlaskClient) -> None:
    refused = client.get("/v1/predictions?cursor=" + "a" * 4_000)
    assert (refused.status_code, refused.json["invalid_fields"][0]["field"]) == (414, "url")


def test_a_body_is_bounded_even_where_nobody_reads_it(client: FlaskClient) -> None:
    bearer = {"Authorization": "Bearer shop"}
    made = order(client, "shop").json["id"]
    refused = client.post(f"/v1/predictions/{made}/cancel", data=b"a" * 70_000, headers=bearer)
    assert (refused.status_code, refused.json["invalid_fields"][0]["field"]) == (413, "body")
    assert client.get(f"/v1/predictions/{made}", headers=bearer).json["status"] == "starting"
