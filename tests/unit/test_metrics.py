"""The list of metrics, the census behind the states, and who may read them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from fakeredis import FakeRedis, FakeServer
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from api.server import create_app
from shared.errors import StoreUnavailable
from shared.job_store import JobStore
from shared.jobs import Lane
from shared.metrics import describe
from shared.redis_client import answering
from shared.settings import Settings
from shared.worker_registry import WorkerInfo, WorkerRegistry
from tests.contracts.api import SETTINGS, idle_storage
from tests.contracts.jobs import MODEL, new_result, new_spec

UNITS = ("_seconds", "_bytes", "_ratio", "_total")
COUNTS = {
    "granule_jobs_waiting", "granule_jobs_running", "granule_jobs_unfinished", "granule_workers_ready", "granule_redis_up",
    "granule_dead_letters", "granule_deliveries_pending",
}  # fmt: skip
FORBIDDEN_LABELS = {"tenant", "prompt", "job", "job_id", "token", "url"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def redis(server: FakeServer) -> FakeRedis:
    return FakeRedis(server=server, decode_responses=True)


@pytest.fixture
def store(redis: FakeRedis) -> JobStore:
    return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=1)


def client_of(settings: Settings, redis: FakeRedis, store: JobStore) -> FlaskClient:
    workers = WorkerRegistry(redis, prefix="test:", ttl_s=15)
    app = create_app(settings, store=store, enqueue=lambda *_, **__: None, storage=idle_storage(), workers=workers)
    return app.test_client()


def scrape(client: FlaskClient) -> Samples:
    text = client.get("/metrics").text
    families = text_string_to_metric_families(text)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for found in families for sample in found.samples}


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def order(store: JobStore, lane: Lane = Lane.NORMAL) -> str:
    return store.create(replace(new_spec(), lane=lane), body_hash="h", queue_max_jobs=10).job_id


def claim(store: JobStore, job_id: str) -> int:
    job = store.claim(job_id, worker="w", delivery_token=job_id)
    assert job is not None
    return job.fence


def test_every_metric_says_its_unit_and_its_meaning_and_names_nobody() -> None:
    for line in describe():
        assert re.fullmatch(r"granule_[a-z0-9_]+", line.name)
        assert line.name.endswith(UNITS) or line.name in COUNTS, line.name
        assert len(line.help.split()) > 1 and line.help.endswith("."), line.name
        assert not FORBIDDEN_LABELS & set(line.labels), line.name
        assert (line.kind == "counter") == line.name.endswith("_total")


def test_the_states_are_those_of_the_records(redis: FakeRedis, store: JobStore) -> None:
    WorkerRegistry(redis, prefix="test:", ttl_s=15).beat(WorkerInfo("w", MODEL, "cpu"))
    done, lost, waiting, called_off = order(store), order(store), order(store, Lane.HIGH), order(store)
    store.succeed(done, claim(store, done), new_result())
    store.expire(lost, fence=claim(store, lost))
    store.cancel(called_off)
    running = order(store)
    claim(store, running)
    samples = scrape(client_of(SETTINGS.model_copy(update={"metrics_token": None}), redis, store))
    assert value(samples, "granule_redis_up") == 1
    assert value(samples, "granule_jobs_waiting", model=MODEL, lane="high") == 1
    assert value(samples, "granule_jobs_waiting", model=MODEL, lane="normal") == 0
    age_s = value(samples, "granule_jobs_waiting_age_seconds", model=MODEL, lane="high")
    assert age_s is not None and 0 <= age_s < 60
    assert value(samples, "granule_jobs_running", model=MODEL) == 1
    assert value(samples, "granule_jobs_unfinished", model=MODEL) == 2
    assert value(samples, "granule_workers_ready", model=MODEL) == 1
    assert value(samples, "granule_jobs_created_total", model=MODEL) == 5
    ended = {
        (labels["status"], labels["reason"]): found
        for (name, pairs), found in samples.items()
        if name == "granule_jobs_ended_total" and (labels := dict(pairs))
    }
    assert ended == {("succeeded", "rendered"): 1, ("failed", "worker_lost"): 1, ("canceled", "owner"): 1}
    assert value(samples, "granule_attempts_lost_total", model=MODEL, noticed_by="guardian") == 1
    assert value(samples, "granule_dead_letters", kind="jobs") == 1
    assert store.get(waiting).status == "queued"


def test_a_replayed_end_is_counted_once(redis: FakeRedis, store: JobStore) -> None:
    job_id = order(store)
    fence = claim(store, job_id)
    store.succeed(job_id, fence, new_result())
    store.succeed(job_id, fence, new_result())
    samples = scrape(client_of(SETTINGS, redis, store))
    assert value(samples, "granule_jobs_ended_total", model=MODEL, status="succeeded", reason="rendered") == 1


def test_a_store_that_is_away_is_told_and_counted(server: FakeServer, redis: FakeRedis, store: JobStore) -> None:
    client = client_of(SETTINGS, redis, store)
    before = value(scrape(client), "granule_redis_errors_total", kind="unreachable") or 0
    server.connected = False
    scrape(client)
    with pytest.raises(StoreUnavailable), answering():
        redis.ping()
    samples = scrape(client)
    assert value(samples, "granule_redis_up") == 0
    assert value(samples, "granule_jobs_running", model=MODEL) is None
    assert (value(samples, "granule_redis_errors_total", kind="unreachable") or 0) >= before + 2


def test_requests_are_timed_by_view_whatever_the_address(redis: FakeRedis, store: JobStore) -> None:
    client = client_of(SETTINGS, redis, store)
    name = "granule_http_request_seconds_count"
    labels = {"view": "predictions.get_prediction", "method": "GET", "status": "401"}
    before = value(scrape(client), name, **labels) or 0
    for address in ("/v1/predictions/unknown", "/v1/v1/predictions/unknown", "/predictions/unknown"):
        client.get(address)
    client.get("/nothing/here")
    samples = scrape(client)
    assert value(samples, name, **labels) == before + 3
    assert value(samples, name, view="none", method="GET", status="404")


def test_methods_that_callers_make_up_are_counted_as_one(redis: FakeRedis, store: JobStore) -> None:
    client = client_of(SETTINGS, redis, store)
    name = "granule_http_request_seconds_count"
    for number in range(3):
        client.open("/v1/predictions", method=f"MADE-UP-{number}")
    samples = scrape(client)
    methods = {dict(labels)["method"] for found, labels in samples if found == name}
    assert not [method for method in methods if method.startswith("MADE-UP")]
    assert (value(samples, name, view="none", method="other", status="405") or 0) >= 3


def test_without_a_scrapers_token_only_this_machine_is_answered(redis: FakeRedis, store: JobStore) -> None:
    client = client_of(SETTINGS, redis, store)
    assert client.get("/metrics").status_code == 200
    afar = client.get("/metrics", environ_base={"REMOTE_ADDR": "10.0.0.7"})
    assert afar.status_code == 401 and "GRANULE_METRICS_TOKEN" in afar.json["detail"]
    assert client.get("/metrics", headers={"X-Forwarded-For": "10.0.0.7"}).status_code == 401


def test_with_one_the_token_is_asked_for_everywhere(redis: FakeRedis, store: JobStore) -> None:
    client = client_of(SETTINGS.model_copy(update={"metrics_token": SecretStr("scraper")}), redis, store)
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer shop-token"}).status_code == 401
    answer = client.get("/metrics", headers={"Authorization": "Bearer scraper"}, environ_base={"REMOTE_ADDR": "10.0.0.7"})
    assert answer.status_code == 200 and answer.content_type.startswith("text/plain")


def test_an_autoscaler_is_told_what_there_is_to_do(server: FakeServer, redis: FakeRedis, store: JobStore) -> None:
    client = client_of(SETTINGS.model_copy(update={"metrics_token": SecretStr("scraper")}), redis, store)
    claim(store, order(store))
    order(store, Lane.LOW)
    scaler = {"Authorization": "Bearer scraper"}
    answer = client.get(f"/metrics/jobs/{MODEL}", headers=scaler)
    assert answer.json == {"waiting": 1, "running": 1, "unfinished": 2, "workers": 0}
    assert client.get(f"/metrics/jobs/{MODEL}").status_code == 401
    assert client.get("/metrics/jobs/no/such", headers=scaler).status_code == 404
    # No number at all while nobody knows: a 0 would have the workers stopped.
    server.connected = False
    assert client.get(f"/metrics/jobs/{MODEL}", headers=scaler).status_code == 503
