"""What was given up, and how it is set off again: the same tests run on fakeredis and on the real server."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from redis import Redis

from api.server import create_app
from api.tokens import Scope, Token
from shared.errors import Gone, InputInvalid, NotFound
from shared.job_store import Finish, JobStore
from shared.jobs import Event, Lane, Status
from shared.outbox import DeliveryState, Outbox
from shared.settings import Settings
from shared.worker_registry import WorkerRegistry
from tests.contracts.api import OTHER, SHOP, idle_storage
from tests.contracts.jobs import MODEL, new_result, new_spec

HOOK = "https://shop.example.com/hook"
OPERATOR = {"Authorization": "Bearer operator-token"}


class DeadLettersContract:
    """Subclasses provide `redis`, a client of an empty server."""

    @pytest.fixture
    def store(self, redis: Redis) -> JobStore:
        return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)

    @pytest.fixture
    def outbox(self, redis: Redis) -> Outbox:
        return Outbox(redis, prefix="test:")

    @pytest.fixture
    def sent(self) -> list[tuple[str, Lane]]:
        return []

    @pytest.fixture
    def app(self, redis: Redis, store: JobStore, outbox: Outbox, sent: list[tuple[str, Lane]]) -> Flask:
        def enqueue(job_id: str, *, model: str, lane: Lane) -> None:
            sent.append((job_id, lane))

        names = [SecretStr(f"{name}:{name}-token") for name in ("shop", "other", "operator")]
        settings = Settings(redis_prefix="test:", api_tokens=tuple(names))
        workers = WorkerRegistry(redis, prefix="test:", ttl_s=15)
        app = create_app(settings, store=store, outbox=outbox, enqueue=enqueue, storage=idle_storage(), workers=workers)
        known = app.extensions["granule"].tokens._listed
        known[2] = (known[2][0], Token("operator", "operator", frozenset({Scope.ADMIN})))
        return app

    @pytest.fixture
    def client(self, app: Flask) -> FlaskClient:
        return app.test_client()

    def make(self, store: JobStore, **changes: object) -> str:
        spec = new_spec(webhook=HOOK, webhook_events=[Event.START, Event.COMPLETED], **changes)
        return store.create(spec, body_hash="h", queue_max_jobs=100).job_id

    def kill(self, store: JobStore, job_id: str) -> None:
        while store.get(job_id).status is not Status.FAILED:
            job = store.claim(job_id, worker="w", delivery_token=str(store.get(job_id).crashes))
            assert job is not None
            store.expire(job_id, fence=job.fence)

    # -- predictions

    def test_a_dead_job_comes_back_with_all_its_attempts(self, store: JobStore) -> None:
        job_id = self.make(store, cancel_after_s=60)
        self.kill(store, job_id)
        assert store.dead() == (1, [job_id])
        store.requeue(job_id)
        store.requeue(job_id)
        job = store.get(job_id)
        assert (job.status, job.crashes, job.error, job.completed_ms) == (Status.QUEUED, 0, None, None)
        assert (job.deadline_ms, job.expires_ms) == (None, None)
        assert store.position(job) == 0 and store.dead() == (0, [])
        assert store.overdue() == []
        claimed = store.claim(job_id, worker="w", delivery_token="again")
        assert claimed is not None and claimed.fence == 4
        store.requeue(job_id)
        assert store.let_go(job_id, 3) is Finish.REFUSED
        assert store.succeed(job_id, 4, new_result()) is Finish.DONE
        with pytest.raises(InputInvalid):
            store.requeue(job_id)

    def test_a_job_that_dies_again_is_dead_again(self, store: JobStore) -> None:
        job_id = self.make(store)
        self.kill(store, job_id)
        store.requeue(job_id)
        self.kill(store, job_id)
        assert store.get(job_id).crashes == 3 and store.dead() == (1, [job_id])

    def test_its_caller_is_told_how_it_ended_at_last(self, store: JobStore, outbox: Outbox) -> None:
        job_id = self.make(store)
        self.kill(store, job_id)
        store.requeue(job_id)
        store.claim(job_id, worker="w", delivery_token="again")
        store.succeed(job_id, 4, new_result())
        told = [(delivery.event, delivery.job.status) for delivery in outbox.of_job(job_id)]
        assert told == [
            (Event.START, Status.RUNNING),
            (Event.COMPLETED, Status.FAILED),
            (Event.COMPLETED, Status.SUCCEEDED),
        ]

    def test_what_is_not_dead_stays_as_it_is(self, store: JobStore) -> None:
        queued, done, canceled = self.make(store), self.make(store), self.make(store)
        store.claim(done, worker="w", delivery_token="1")
        store.succeed(done, 1, new_result())
        store.cancel(canceled)
        for job_id in (queued, done, canceled):
            before = store.get(job_id)
            with pytest.raises(InputInvalid):
                store.requeue(job_id)
            assert store.get(job_id) == before
        with pytest.raises(NotFound):
            store.requeue("nowhere")

    def test_what_was_removed_does_not_come_back(self, store: JobStore) -> None:
        job_id = self.make(store)
        self.kill(store, job_id)
        store.remove_data(store.get(job_id))
        with pytest.raises(Gone):
            store.requeue(job_id)

    def test_an_operator_queues_a_dead_prediction_again(
        self, client: FlaskClient, store: JobStore, sent: list[tuple[str, Lane]]
    ) -> None:
        job_id = self.make(store)
        self.kill(store, job_id)
        address = f"/v1/dead-letters/predictions/{job_id}/requeue"
        assert client.post(address, headers=SHOP).status_code == 403
        found = client.get("/v1/dead-letters", headers=OPERATOR).json
        assert (found["prediction_count"], found["predictions"]) == (1, [job_id])
        again = client.post(address, headers=OPERATOR)
        assert (again.status_code, again.json["status"], again.json["queue_position"]) == (200, "starting", 0)
        assert sent == [(job_id, Lane.RECOVERY)]
        assert store.depth(MODEL) == 1
        assert client.post("/v1/dead-letters/predictions/x/requeue", headers=OPERATOR).status_code == 404

    # -- webhook messages

    def test_deliveries_are_listed_to_their_owner(self, client: FlaskClient, store: JobStore, outbox: Outbox) -> None:
        job_id = self.make(store)
        store.cancel(job_id)
        [delivery_id] = outbox.take_due(limit=10, hold_s=60)
        delivery = outbox.get(delivery_id)
        assert delivery is not None
        outbox.settle(delivery, DeliveryState.PENDING, note="HTTP 502", retry_s=60)
        [shown] = client.get(f"/v1/predictions/{job_id}/deliveries", headers=SHOP).json["results"]
        assert (shown["id"], shown["number"], shown["event"]) == (f"msg_{job_id}.1", 1, "completed")
        assert (shown["state"], shown["attempts"], shown["url"]) == ("pending", 1, HOOK)
        assert [entry["note"] for entry in shown["tries"]] == ["HTTP 502"]
        assert client.get(f"/v1/jobs/{job_id}/deliveries", headers=SHOP).status_code == 200
        assert client.get(f"/v1/predictions/{job_id}/deliveries", headers=OTHER).status_code == 404
        assert client.get("/v1/predictions/none/deliveries", headers=SHOP).status_code == 404

    def test_an_owner_sends_a_message_again(self, client: FlaskClient, store: JobStore, outbox: Outbox) -> None:
        job_id = self.make(store)
        store.cancel(job_id)
        [delivery_id] = outbox.take_due(limit=10, hold_s=60)
        delivery = outbox.get(delivery_id)
        assert delivery is not None
        outbox.settle(delivery, DeliveryState.DELIVERED, note="HTTP 200")
        address = f"/v1/predictions/{job_id}/deliveries"
        assert client.post(f"{address}/1/redeliver", headers=OTHER).status_code == 404
        assert outbox.take_due(limit=10, hold_s=60) == []
        again = client.post(f"{address}/1/redeliver", headers=SHOP)
        assert (again.status_code, again.json["state"], again.json["attempts"]) == (200, "pending", 0)
        assert outbox.take_due(limit=10, hold_s=60) == [delivery_id]
        for number in ("2", "0", "x", "1.1", "1" * 10):
            assert client.post(f"{address}/{number}/redeliver", headers=SHOP).status_code == 404

    def test_an_operator_sends_all_dead_messages_again(self, client: FlaskClient, store: JobStore, outbox: Outbox) -> None:
        for job_id in [self.make(store) for _ in range(3)]:
            store.cancel(job_id)
            outbox.discard(f"{job_id}.1", note="the receiver was away")
        assert client.get("/v1/dead-letters", headers=SHOP).status_code == 403
        assert client.post("/v1/dead-letters/deliveries/redeliver", headers=SHOP).status_code == 403
        found = client.get("/v1/dead-letters", headers=OPERATOR).json
        assert found["delivery_count"] == 3 and [entry["state"] for entry in found["deliveries"]] == ["dead"] * 3
        assert client.post("/v1/dead-letters/deliveries/redeliver", headers=OPERATOR).json == {"redelivered": 3}
        assert client.get("/v1/dead-letters", headers=OPERATOR).json["delivery_count"] == 0
        assert len(outbox.take_due(limit=10, hold_s=60, at_once=10)) == 3
