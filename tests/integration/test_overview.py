"""What operators see at a glance, from records on a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import pytest
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.test import TestResponse

from api.overview import _spread
from api.server import create_app
from api.tokens import new_entry
from shared.job_store import JobStore
from shared.jobs import JobError, Lane
from shared.redis_client import connect
from shared.settings import REPOSITORY, Settings
from shared.worker_registry import DeviceMemory, Standing, WorkerInfo, WorkerRegistry
from tests.contracts.jobs import MODEL, new_result, new_spec

RETENTION_S = 3600


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url, timeout_s=5) as client:
        yield client


@pytest.fixture
def store(redis: Redis) -> JobStore:
    return JobStore(redis, retention_s=RETENTION_S, lease_s=15, max_attempts=3)


@pytest.fixture
def client(redis_url: str, tmp_path: Path) -> FlaskClient:
    admin = {"scopes": ["read", "create", "admin"]}
    (tmp_path / "tokens.toml").write_text(new_entry("shop", "shop-token", {}) + new_entry("chief", "chief-token", admin))
    settings = Settings(
        redis_url=redis_url, retention_s=RETENTION_S, models_dir=REPOSITORY / "models", api_tokens_file=tmp_path / "tokens.toml"
    )
    return create_app(settings).test_client()


def read(client: FlaskClient, token: str = "chief-token") -> dict[str, object]:
    found = client.get("/v1/overview", headers={"Authorization": f"Bearer {token}"})
    assert found.status_code == 200, found.text
    body = found.get_json()
    assert isinstance(body, dict)
    return body


def submit(store: JobStore, **changes: object) -> str:
    return store.create(new_spec(**changes), body_hash="h", queue_max_jobs=100).job_id


def claim(store: JobStore, job_id: str) -> int:
    job = store.claim(job_id, worker="host-1", delivery_token=job_id)
    assert job is not None
    return job.fence


def test_nothing_at_all_is_shown_as_such(client: FlaskClient) -> None:
    body = read(client)
    assert body["running"] == body["workers"] == body["failures"] == []
    assert body["per_minute"] == [0] * 60
    assert body["totals"] == [{"p50_s": None, "p95_s": None}] * 12
    assert {line["waiting"] for line in body["queues"]} == {0}  # type: ignore[attr-defined]


def test_lines_workers_and_the_last_hour_are_those_of_the_records(client: FlaskClient, store: JobStore, redis: Redis) -> None:
    done, failed, held = (submit(store, lane=Lane.HIGH) for _ in range(3))
    store.succeed(done, claim(store, done), new_result())
    store.fail(failed, claim(store, failed), JobError("out_of_memory", "no memory"))
    fence = claim(store, held)
    store.renew(held, fence, step=7)
    first, second = submit(store, tenant="other"), submit(store)
    store.cancel(submit(store))
    workers = WorkerRegistry(redis, prefix="granule:", ttl_s=15)
    workers.beat(WorkerInfo("host-1", MODEL, "cpu", busy_s=9, starved_s=1))

    body = read(client)
    lines = {(line["model"], line["lane"]): line for line in body["queues"]}  # type: ignore[attr-defined]
    normal = lines[MODEL, "normal"]
    assert normal["waiting"] == 2 and 0 <= normal["oldest_s"] < 60
    assert [(job["prediction"], job["tenant"]) for job in normal["next"]] == [(first, "other"), (second, "shop")]
    [running] = body["running"]  # type: ignore[misc]
    assert (running["prediction"], running["worker"], running["step"], running["steps"]) == (held, "host-1", 7, 20)
    [worker] = body["workers"]  # type: ignore[misc]
    assert (worker["state"], worker["prediction"], worker["duty"]) == ("busy", held, 0.9)
    assert 0 <= worker["silence_s"] < 15
    hour = next(model for model in body["models"] if model["model"] == MODEL)  # type: ignore[attr-defined]
    assert (hour["succeeded"], hour["failed"], hour["canceled"]) == (1, 1, 1)
    assert 0 <= hour["draw"]["p50_s"] <= hour["total"]["p95_s"] < 60 and 0 <= hour["busy"] <= 1
    assert body["failures"] == [{"code": "out_of_memory", "count": 1}]
    assert sum(body["per_minute"]) == 3  # type: ignore[call-overload]
    assert body["totals"][-1] == hour["total"]  # type: ignore[index]
    assert body["totals"][:-1] == [{"p50_s": None, "p95_s": None}] * 11  # type: ignore[index]


def test_a_worker_is_drained_and_resumed(client: FlaskClient, store: JobStore, redis: Redis) -> None:
    workers = WorkerRegistry(redis, prefix="granule:", ttl_s=15)
    workers.beat(WorkerInfo("host-1", MODEL, "GPU", memory=DeviceMemory(60, 80, 12)))
    held = submit(store)
    claim(store, held)

    def post(path: str, token: str = "chief-token") -> TestResponse:
        return client.post(f"/v1/workers/{path}", headers={"Authorization": f"Bearer {token}"})

    drained = post("host-1/drain")
    assert (drained.status_code, drained.json["state"], drained.json["prediction"]) == (200, "draining", held)
    assert drained.json["memory"] == {"free_bytes": 60, "total_bytes": 80, "peak_bytes": 12}
    assert read(client)["workers"] == [drained.json | {"silence_s": ANY}]
    workers.beat(WorkerInfo("host-1", MODEL, "GPU", standing=Standing.DRAINED))
    hour = next(model for model in read(client)["models"] if model["model"] == MODEL)  # type: ignore[attr-defined]
    assert hour["busy"] is None
    assert post("host-1/resume").json["state"] == "starting"
    unknown = post("host-2/drain")
    assert (unknown.status_code, unknown.json["invalid_fields"][0]["field"]) == (404, "worker")
    assert post("host-1/drain", "shop-token").status_code == 403


def test_it_is_for_operators_only(client: FlaskClient) -> None:
    assert client.get("/v1/overview", headers={"Authorization": "Bearer shop-token"}).status_code == 403
    assert client.get("/v1/overview").status_code == 401


@pytest.mark.parametrize(
    ("durations_ms", "p50_s", "p95_s"),
    [([], None, None), ([1000], 1, 1), ([4000, 1000, 3000, 2000], 2, 4), (range(1000, 101_000, 1000), 50, 95)],
)
def test_a_spread_is_of_values_that_occurred(durations_ms: list[int], p50_s: float | None, p95_s: float | None) -> None:
    assert _spread(durations_ms) == {"p50_s": p50_s, "p95_s": p95_s}
