"""The API's contract: the same tests run on fakeredis (tests/unit) and on the real server (tests/integration)."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from redis import Redis
from replicate.prediction import Prediction as OfficialPrediction
from werkzeug.test import TestResponse

from api.server import create_app
from shared.errors import StoreUnavailable
from shared.job_store import JobStore
from shared.jobs import JobError, Lane
from shared.previews import Previews
from shared.settings import Settings
from shared.storage import Storage, connect_storage
from shared.worker_registry import WorkerInfo, WorkerRegistry
from tests.contracts.jobs import new_result

MODEL = "granule/rubber-tile-mini"
OLD_VERSION = "763970a6702524ff048dd130709e255581912c8a4ab516db4520788f70b84e30"
MIX = "50% red, 30% black, 20% pearl"
SHOP = {"Authorization": "Bearer shop-token"}
OTHER = {"Authorization": "Bearer other-token"}
SETTINGS = Settings(
    redis_prefix="test:",
    api_tokens=(SecretStr("shop:shop-token"), SecretStr("other:other-token")),
    queue_max_jobs=300,
)


@cache
def idle_storage() -> Storage:
    """A storage that no test here asks for anything."""
    return connect_storage(SETTINGS)


class ApiContract:
    """Subclasses provide `redis`, a client of an empty server."""

    @pytest.fixture
    def store(self, redis: Redis) -> JobStore:
        return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)

    @pytest.fixture
    def sent(self) -> list[str]:
        """Ids of the jobs that workers were told about."""
        return []

    @pytest.fixture
    def app(self, redis: Redis, store: JobStore, sent: list[str]) -> Flask:
        def enqueue(job_id: str, *, model: str, lane: Lane) -> None:
            sent.append(job_id)

        workers = WorkerRegistry(redis, prefix="test:", ttl_s=15)
        parts: dict[str, Any] = {"storage": idle_storage(), "workers": workers, "previews": Previews(redis, prefix="test:")}
        return create_app(SETTINGS, store=store, enqueue=enqueue, **parts)

    @pytest.fixture
    def client(self, app: Flask) -> FlaskClient:
        client = app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = SHOP["Authorization"]
        return client

    def order(self, client: FlaskClient, *, headers: dict[str, str] | None = None, **given: Any) -> TestResponse:
        body = {"version": MODEL, "input": {"prompt": MIX, **given}}
        return client.post("/v1/predictions", json=body, headers=headers or {})

    def claim(self, store: JobStore, job_id: str) -> int:
        job = store.claim(job_id, worker="w", delivery_token=job_id)
        assert job is not None
        return job.fence


class PredictionsContract(ApiContract):
    """Create, read, list, cancel."""

    def test_an_order_is_recorded_announced_and_readable(self, client: FlaskClient, sent: list[str]) -> None:
        created = self.order(client, seed=42)
        assert created.status_code == 201
        assert created.headers["Location"] == created.json["urls"]["get"]
        assert sent == [created.json["id"]]
        read = client.get(created.headers["Location"]).json
        assert read == created.json
        assert OfficialPrediction(**read).status == "starting"
        assert (read["model"], read["seed"], read["queue_position"], read["attempts"]) == (MODEL, 42, 0, 0)

    def test_a_preview_is_shown_to_whoever_has_its_address_while_the_picture_is_drawn(
        self, app: Flask, client: FlaskClient, store: JobStore, redis: Redis
    ) -> None:
        made = self.order(client, preview=True).json
        address = made["urls"]["preview"]
        public = app.test_client()
        assert public.get(address).status_code == 204
        fence = self.claim(store, made["id"])
        assert public.get(address).status_code == 204
        Previews(redis, prefix="test:").put(made["id"], b"a picture")
        shown = public.get(address)
        assert (shown.status_code, shown.mimetype, shown.data) == (200, "image/webp", b"a picture")
        assert (shown.headers["Cache-Control"], shown.headers["Access-Control-Allow-Origin"]) == ("no-store", "*")
        assert public.get(f"{address}x").status_code == public.get(f"/v1/previews/unknown/{address[-32:]}").status_code == 404
        store.succeed(made["id"], fence, new_result())
        assert public.get(address).status_code == 204
        assert "preview" not in client.get(made["urls"]["get"]).json["urls"]

    def test_who_asks_for_no_preview_has_none(self, app: Flask, client: FlaskClient) -> None:
        made = self.order(client).json
        assert "preview" not in made["urls"]
        address = made["urls"]["stream"].replace("/streams/", "/previews/")
        assert app.test_client().get(address).status_code == 404
        assert self.order(client, preview="yes").status_code == 422

    def test_a_seed_is_chosen_for_an_order_without_one(self, client: FlaskClient) -> None:
        seeds = {self.order(client, **given).json["seed"] for given in ({}, {"seed": None}, {"seed": -1})}
        assert len(seeds) == 3
        assert all(0 <= seed < 2**32 for seed in seeds)

    def test_the_life_of_a_prediction(self, client: FlaskClient, store: JobStore) -> None:
        job_id = self.order(client).json["id"]
        fence = self.claim(store, job_id)
        store.renew(job_id, fence, step=2, log=" 25%|##5       | 5/20 [00:01<00:03,  4.00it/s]\n")
        running = client.get(f"/v1/predictions/{job_id}").json
        official = OfficialPrediction(**running)
        assert (official.status, official.progress.percentage, official.progress.current) == ("processing", 0.25, 5)
        steps = store.get(job_id).spec.render.steps
        assert running["progress"] == {"step": 2, "steps": steps, "fraction": pytest.approx(2 / steps, abs=1e-4)}
        assert (running["queue_position"], running["attempts"]) == (None, 1)
        store.succeed(job_id, fence, new_result())
        done = client.get(f"/v1/predictions/{job_id}").json
        assert done["status"] == "succeeded"
        assert done["output"].startswith("http://localhost/v1/files/")
        assert done["provenance"] == {"device": "cpu"}

    def test_a_failed_prediction_is_no_http_error(self, client: FlaskClient, store: JobStore) -> None:
        job_id = self.order(client).json["id"]
        store.fail(job_id, self.claim(store, job_id), JobError("out_of_memory", "no memory left"))
        failed = client.get(f"/v1/predictions/{job_id}")
        assert failed.status_code == 200
        assert (failed.json["status"], failed.json["error"]) == ("failed", "no memory left")

    def test_cancel_while_it_waits_with_an_empty_json_body(self, client: FlaskClient) -> None:
        job_id = self.order(client).json["id"]
        for _ in range(2):
            canceled = client.post(f"/v1/predictions/{job_id}/cancel", content_type="application/json")
            assert (canceled.status_code, canceled.json["status"]) == (200, "canceled")

    def test_cancel_while_it_runs_is_told_when_the_worker_let_go(self, client: FlaskClient, store: JobStore) -> None:
        job_id = self.order(client).json["id"]
        fence = self.claim(store, job_id)
        assert client.post(f"/v1/predictions/{job_id}/cancel").json["status"] == "processing"
        store.let_go(job_id, fence)
        assert client.get(f"/v1/predictions/{job_id}").json["status"] == "canceled"

    def test_a_deadline_is_told_and_passes(self, client: FlaskClient, store: JobStore, redis: Redis) -> None:
        body = {"version": MODEL, "input": {"prompt": MIX}}
        made = client.post("/v1/predictions", json=body, headers={"Cancel-After": "1m30s"}).json
        lasts = datetime.fromisoformat(made["deadline"]) - datetime.fromisoformat(made["created_at"])
        assert lasts == timedelta(seconds=90)
        assert store.overdue() == []
        redis.zadd("test:deadlines", {made["id"]: 1})
        assert store.overdue() == [made["id"]]
        store.cancel(made["id"], JobError("deadline_passed", "too late"))
        ended = client.get(f"/v1/predictions/{made['id']}").json
        assert (ended["status"], ended["error"], store.overdue()) == ("canceled", "too late", [])

    def test_nobody_sees_the_jobs_of_another_tenant(self, client: FlaskClient, store: JobStore) -> None:
        job_id = self.order(client).json["id"]
        assert client.get(f"/v1/predictions/{job_id}", headers=OTHER).status_code == 404
        assert client.post(f"/v1/predictions/{job_id}/cancel", headers=OTHER).status_code == 404
        assert client.get("/v1/predictions", headers=OTHER).json["results"] == []
        assert store.get(job_id).status == "queued"

    def test_pages_link_to_each_other_by_absolute_addresses(self, client: FlaskClient) -> None:
        ids = [self.order(client).json["id"] for _ in range(250)][::-1]
        pages, url = [], "/v1/predictions"
        while url is not None:
            pages.append(client.get(url).json)
            url = pages[-1]["next"]
            assert url is None or url.startswith("http://localhost/v1/predictions?cursor=")
        assert [len(page["results"]) for page in pages] == [100, 100, 50]
        assert [job["id"] for page in pages for job in page["results"]] == ids
        assert pages[0]["previous"] is None
        back = client.get(pages[2]["previous"]).json
        assert [job["id"] for job in back["results"]] == ids[100:200]
        first = client.get(back["previous"]).json
        assert ([job["id"] for job in first["results"]], first["previous"]) == (ids[:100], None)

    def test_a_list_between_two_moments(self, client: FlaskClient) -> None:
        made = []
        for _ in range(4):
            made.append(self.order(client).json)
            time.sleep(0.003)
        after, before = made[1]["created_at"], made[3]["created_at"]
        found = client.get("/v1/predictions", query_string={"created_after": after, "created_before": before}).json
        assert [job["id"] for job in found["results"]] == [made[2]["id"], made[1]["id"]]
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        assert client.get("/v1/predictions", query_string={"created_after": later}).json["results"] == []
        assert client.get("/v1/predictions?source=web").json["results"] == []

    def test_a_full_queue_refuses_and_keeps_nothing(self, client: FlaskClient, store: JobStore, app: Flask) -> None:
        for _ in range(SETTINGS.queue_max_jobs):
            self.order(client)
        refused = self.order(client)
        assert refused.status_code == 429
        assert refused.headers["Retry-After"].isdigit()
        assert refused.headers["x-should-retry"] == "true"
        assert refused.json["code"] == "queue_full"
        assert store.depth(MODEL) == SETTINGS.queue_max_jobs

    def test_live_workers_are_counted(self, client: FlaskClient, redis: Redis) -> None:
        workers = WorkerRegistry(redis, prefix="test:", ttl_s=15)
        workers.beat(WorkerInfo("w1", MODEL, "cpu"))
        workers.beat(WorkerInfo("w2", MODEL, "cpu"))
        assert client.get("/v1/hardware").json == [{"sku": "cpu", "name": "cpu"}]
        configuration = client.get(f"/v1/deployments/{MODEL}").json["current_release"]["configuration"]
        assert configuration == {"hardware": "cpu", "min_instances": 2, "max_instances": 2}
        self.order(client)
        assert client.get(f"/v1/models/{MODEL}").json["run_count"] == 1


class SafeCreatesContract(ApiContract):
    """A blind repeat makes no second job; a deliberate second order does."""

    def test_one_key_and_body_is_one_prediction(self, client: FlaskClient, sent: list[str]) -> None:
        key = {"Idempotency-Key": "order-17"}
        first, again = self.order(client, headers=key), self.order(client, headers=key)
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json == first.json
        assert again.headers["Idempotent-Replayed"] == "true"
        assert len(sent) == 1
        assert self.order(client, headers={**key, **OTHER}).status_code == 201

    def test_one_key_and_another_body_is_refused(self, client: FlaskClient) -> None:
        key = {"Idempotency-Key": "order-17"}
        self.order(client, headers=key)
        refused = self.order(client, headers=key, seed=1)
        assert refused.status_code == 422
        assert refused.json["invalid_fields"][0]["field"] == "Idempotency-Key"

    def test_twenty_at_once_with_one_key_are_one_job(self, app: Flask, store: JobStore) -> None:
        headers, made = {**SHOP, "Idempotency-Key": "k"}, []
        threads = [
            threading.Thread(target=lambda: made.append(self.order(app.test_client(), headers=headers))) for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({response.json["id"] for response in made}) == 1
        assert sorted(response.status_code for response in made) == [200] * 19 + [201]
        assert store.depth(MODEL) == 1

    def test_put_makes_a_prediction_once(self, client: FlaskClient) -> None:
        body = {"version": MODEL, "input": {"prompt": MIX}, "id": "order-17"}
        first = client.put("/v1/predictions/order-17", json=body)
        version = client.get(f"/v1/models/{MODEL}").json["latest_version"]["id"]
        again = client.put("/v1/predictions/order-17", json=body | {"version": version})
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json["id"] == again.json["id"] == "order-17"
        for changed in ({"input": {"prompt": "100% red"}}, {"id": "order-18"}):
            refused = client.put("/v1/predictions/order-17", json=body | changed)
            assert (refused.status_code, refused.json["invalid_fields"][0]["field"]) == (422, "id")
            assert "different body" in refused.json["detail"] or "differs" in refused.json["detail"]
        for theirs in (body, body | {"input": {"prompt": "100% red"}}):
            refused = client.put("/v1/predictions/order-17", json=theirs, headers=OTHER)
            assert (refused.status_code, refused.json["detail"]) == (422, "this id is taken; choose another")
            assert refused.json["invalid_fields"][0]["field"] == "id"
        assert client.put("/v1/predictions/a%20b", json=body).status_code == 422

    def test_put_is_never_answered_with_another_prediction(self, client: FlaskClient, sent: list[str]) -> None:
        key = {"Idempotency-Key": "order-17"}
        made = self.order(client, headers=key).json["id"]
        refused = client.put("/v1/predictions/order-18", json={"version": MODEL, "input": {"prompt": MIX}}, headers=key)
        assert (refused.status_code, refused.json["invalid_fields"][0]["field"]) == (422, "Idempotency-Key")
        red = {"version": MODEL, "input": {"prompt": "100% red"}}
        refused = client.put("/v1/predictions/order-18", json=red, headers=key)
        assert (refused.status_code, refused.json["invalid_fields"][0]["field"]) == (422, "Idempotency-Key")
        assert (sent, client.get("/v1/predictions/order-18").status_code) == ([made], 404)

    def test_the_same_seed_again_at_once_is_a_repeat(self, client: FlaskClient) -> None:
        first, again = self.order(client, seed=7), self.order(client, seed=7)
        assert (first.json["id"], again.status_code) == (again.json["id"], 200)
        assert self.order(client, seed=8).status_code == 201
        assert self.order(client, seed=7, headers=OTHER).status_code == 201

    def test_the_same_mix_without_a_seed_is_a_second_order(self, client: FlaskClient) -> None:
        assert self.order(client).json["id"] != self.order(client).json["id"]
        assert self.order(client, seed=-1).json["id"] != self.order(client, seed=-1).json["id"]

    def test_a_counted_retry_finds_the_order_whose_answer_was_lost(self, client: FlaskClient) -> None:
        first = self.order(client, headers={"x-stainless-retry-count": "0"})
        for attempt in ("1", "2"):
            again = self.order(client, headers={"x-stainless-retry-count": attempt})
            assert (again.json["id"], again.status_code) == (first.json["id"], 200)

    def test_a_counted_retry_of_a_refused_order_makes_one(self, client: FlaskClient, store: JobStore) -> None:
        first = self.order(client, headers={"x-stainless-retry-count": "0"}).json["id"]
        others = [self.order(client, seed=seed).json["id"] for seed in range(SETTINGS.queue_max_jobs - 1)]
        assert self.order(client, headers={"x-stainless-retry-count": "0"}).status_code == 429
        store.cancel(others[0])
        retried = self.order(client, headers={"x-stainless-retry-count": "1"})
        assert retried.status_code == 201
        assert retried.json["id"] != first

    def test_a_refusal_does_not_hide_an_order_whose_answer_was_lost(self, client: FlaskClient, store: JobStore) -> None:
        def send(count: int) -> TestResponse:
            return self.order(client, headers={"x-stainless-retry-count": str(count)})

        lost = send(0).json["id"]
        others = [self.order(client, seed=seed).json["id"] for seed in range(SETTINGS.queue_max_jobs - 1)]
        assert self.order(client).status_code == 429  # by somebody who does not say that they will try again
        assert send(0).status_code == send(1).status_code == 429
        assert send(1).json["id"] == lost
        store.cancel(others[0])
        made = send(2)
        assert made.status_code == 201
        assert [send(count).json["id"] for count in (1, 2, 3)] == [lost, lost, made.json["id"]]

    def test_a_canceled_order_is_no_answer_to_a_repeat(self, client: FlaskClient, store: JobStore) -> None:
        first = self.order(client, seed=7).json["id"]
        store.cancel(first)
        assert self.order(client, seed=7).json["id"] != first

    def test_a_message_that_cannot_be_sent_is_no_error(self, redis: Redis, store: JobStore) -> None:
        def enqueue(job_id: str, *, model: str, lane: Lane) -> None:
            raise StoreUnavailable("the message broker does not answer")

        workers = WorkerRegistry(redis, prefix="test:", ttl_s=15)
        app = create_app(SETTINGS, store=store, enqueue=enqueue, storage=idle_storage(), workers=workers)
        created = self.order(app.test_client(), headers=SHOP)
        assert created.status_code == 201
        assert store.get(created.json["id"]).status == "queued"


class HoldContract(ApiContract):
    """`Prefer: wait`."""

    def test_a_held_create_answers_as_soon_as_the_job_ends(self, client: FlaskClient, store: JobStore) -> None:
        def work() -> None:
            while not (waiting := store.list_jobs("shop")):
                time.sleep(0.01)
            time.sleep(0.2)
            store.succeed(waiting[0].id, self.claim(store, waiting[0].id), new_result())

        worker = threading.Thread(target=work)
        worker.start()
        started_s = time.monotonic()
        done = self.order(client, headers={"Prefer": "wait=20"})
        worker.join()
        assert time.monotonic() - started_s < 5
        assert done.status_code == 201
        assert done.json["status"] == "succeeded"
        assert done.json["output"].endswith("/tile.png")

    def test_a_hold_that_expires_says_starting_even_of_a_running_job(self, client: FlaskClient, store: JobStore) -> None:
        job_id = self.order(client, seed=1).json["id"]
        self.claim(store, job_id)
        started_s = time.monotonic()
        held = self.order(client, seed=1, headers={"Prefer": "wait=1"})
        assert 0.5 < time.monotonic() - started_s < 1.4
        assert (held.json["id"], held.json["status"]) == (job_id, "starting")
        assert client.get(f"/v1/predictions/{job_id}").json["status"] == "processing"

    def test_a_hold_ends_before_the_time_out_that_the_client_announces(self, client: FlaskClient) -> None:
        started_s = time.monotonic()
        held = self.order(client, headers={"Prefer": "wait=30", "x-stainless-read-timeout": "1.5"})
        assert time.monotonic() - started_s < 1.4
        assert (held.status_code, held.json["status"]) == (201, "starting")
