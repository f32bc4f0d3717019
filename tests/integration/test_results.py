"""Stored pictures over HTTP with a real Redis and a real S3: reused, deleted on request, removed when their time is over."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from redis import Redis
from werkzeug.test import TestResponse

from api.server import create_app
from infra.local.ports import free_block
from shared.errors import StorageUnavailable
from shared.filenames import thumbnail_name
from shared.job_store import JobStore, connect_store
from shared.jobs import Event, Job, Output, Result, Status
from shared.manifest import load_catalog
from shared.outbox import Outbox
from shared.queue import make_celery, message_lists
from shared.redis_client import connect
from shared.removal import remove_data, remove_leftovers
from shared.settings import Settings
from shared.storage import Storage, connect_storage, output_key, outputs_prefix, thumbnail_key
from tests.contracts.api import MIX, MODEL
from tests.integration.conftest import S3Location
from worker.sweep import Sweep

SHOP, OTHER = "Bearer shop-token", "Bearer other-token"
WEIGHTS = {"sha256": {"base": "ab" * 32}}
PICTURE = b"\x89PNG" + bytes(range(256))
SMALL = b"small"
SECRET = SecretStr("whsec_" + "c2VjcmV0" * 8)
HOOK = "https://shop.example.com/hook"


@dataclass(frozen=True)
class Parts:
    settings: Settings
    redis: Redis
    store: JobStore
    storage: Storage
    client: FlaskClient

    def order(
        self, *, seed: int | None = 7, token: str = SHOP, body: dict[str, Any] | None = None, **headers: str
    ) -> TestResponse:
        """Order the mix; `Cache_Control="no-cache"` becomes the header of that name."""
        sent = {"Authorization": token, **{name.replace("_", "-"): value for name, value in headers.items()}}
        given = {"version": MODEL, "input": {"prompt": MIX, "seed": seed}} | (body or {})
        return self.client.post("/v1/predictions", json=given, headers=sent)

    def read(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/v1/predictions/{job_id}", headers={"Authorization": SHOP}).json
        return found

    def delete(self, job_id: str, token: str = SHOP) -> TestResponse:
        return self.client.delete(f"/v1/predictions/{job_id}", headers={"Authorization": token})

    def draw(self, job_id: str) -> Job:
        """Do what a render worker does."""
        job = self.store.claim(job_id, worker="w", delivery_token=job_id)
        assert job is not None
        key = output_key(job.id, job.fence, 0, "png")
        self.storage.put(key, PICTURE, content_type="image/png", metadata={})
        output = Output(key, job.spec.filename, "image/png", len(PICTURE), hashlib.sha256(PICTURE).hexdigest())
        small_key, small_name = thumbnail_key(job.id, job.fence, 0), thumbnail_name(job.spec.filename)
        self.storage.put(small_key, SMALL, content_type="image/webp", metadata={})
        small = Output(small_key, small_name, "image/webp", len(SMALL), hashlib.sha256(SMALL).hexdigest())
        self.store.succeed(job.id, job.fence, Result([output], 1.0, WEIGHTS, thumbnails=[small]))
        return self.store.get(job_id)

    def drawn(self, **given: Any) -> str:
        """Id of a prediction that was ordered and drawn long enough ago for the same order not to be a repeat of it."""
        job_id = str(self.order(**given).json["id"])
        self.draw(job_id)
        for key in self.redis.keys(f"{self.settings.redis_prefix}recent:*"):
            self.redis.delete(key)
        return job_id

    def sweep(self) -> Sweep:
        return Sweep(
            store=self.store,
            outbox=Outbox(self.redis, prefix=self.settings.redis_prefix),
            storage=self.storage,
            catalog=load_catalog(self.settings.models_dir),
            celery=make_celery(self.settings),
            prefix=self.settings.redis_prefix,
        )

    def make_due(self, name: str, job_id: str) -> None:
        self.redis.zadd(f"{self.settings.redis_prefix}{name}", {job_id: 1})


@pytest.fixture
def parts(redis_url: str, s3: S3Location) -> Iterator[Parts]:
    tokens = (SecretStr("shop:shop-token"), SecretStr("other:other-token"))
    settings = s3.settings(Settings(redis_url=redis_url, api_tokens=tokens, webhook_secret=SECRET))
    with connect(redis_url, timeout_s=5) as redis:
        store = connect_store(settings, redis)
        store.announce_weights(MODEL, WEIGHTS)
        yield Parts(settings, redis, store, connect_storage(settings), create_app(settings).test_client())
        redis.connection_pool.disconnect()


# -- reuse


def test_a_seeded_order_is_answered_with_the_stored_picture(parts: Parts) -> None:
    first = parts.drawn()
    answer = parts.order()
    again = answer.json
    assert (answer.status_code, again["status"], again["reused_from"]) == (201, "succeeded", first)
    assert "Idempotent-Replayed" not in answer.headers
    assert again["id"] != first and again["output"] != parts.read(first)["output"]
    assert (again["metrics"]["predict_time"], again["attempts"], again["provenance"]) == (0, 1, WEIGHTS)
    assert parts.client.get(again["output"]).data == PICTURE
    assert [parts.client.get(address).data for address in again["thumbnails"]] == [SMALL]
    assert parts.read(again["id"]) == again
    waiting = [
        message for name in message_lists(MODEL, prefix=Settings().redis_prefix) for message in parts.redis.lrange(name, 0, -1)
    ]
    assert len(waiting) == 1  # the first order's own


def test_a_reused_picture_survives_the_first_ones_deletion(parts: Parts) -> None:
    first = parts.drawn()
    again = parts.order().json
    assert parts.delete(first).status_code == 200
    assert parts.client.get(again["output"]).data == PICTURE
    assert parts.client.get(again["thumbnails"][0]).data == SMALL


def test_tenants_share_pictures_where_the_operator_lets_them(parts: Parts) -> None:
    settings = parts.settings.model_copy(update={"reuse_across_tenants": True})
    sharing = replace(parts, store=connect_store(settings, parts.redis), client=create_app(settings).test_client())
    first = sharing.drawn(token=OTHER)
    again = sharing.order().json
    assert (again["status"], again["reused_from"], again["tenant"]) == ("succeeded", first, "shop")
    assert parts.client.get(again["output"]).data == PICTURE
    assert parts.client.get(f"/v1/predictions/{first}", headers={"Authorization": SHOP}).status_code == 404
    assert sharing.delete(first, OTHER).status_code == 200
    assert parts.client.get(again["output"]).data == PICTURE
    assert sharing.order(token=OTHER, body={"stream": True}).json["reused_from"] == again["id"]


@pytest.mark.parametrize(
    "given",
    [
        {"Cache_Control": "no-cache"},
        {"Cache_Control": "max-age=0, No-Store"},
        {"token": OTHER},
        {"seed": 8},
        {"seed": None},
        {"seed": -1},
    ],
)
def test_what_is_drawn_all_the_same(parts: Parts, given: dict[str, Any]) -> None:
    parts.drawn()
    made = parts.order(**given).json
    assert (made["status"], made["reused_from"]) == ("starting", None)


def test_the_operator_can_do_without_reuse(parts: Parts) -> None:
    parts.drawn()
    settings = parts.settings.model_copy(update={"reuse_results": False})
    body = {"version": MODEL, "input": {"prompt": MIX, "seed": 7}}
    client = create_app(settings).test_client()
    assert client.post("/v1/predictions", json=body, headers={"Authorization": SHOP}).json["status"] == "starting"


def test_a_stored_picture_that_is_gone_is_drawn_again(parts: Parts) -> None:
    first = parts.drawn()
    for key in parts.storage.keys(outputs_prefix(first)):
        parts.storage.delete(key)
    made = parts.order().json
    assert (made["status"], made["reused_from"], made["queue_position"]) == ("starting", None, 0)
    assert parts.draw(made["id"]).status is Status.SUCCEEDED


def test_webhooks_of_a_reused_prediction_are_sent_as_ever(parts: Parts) -> None:
    parts.drawn()
    made = parts.order(body={"webhook": HOOK, "webhook_events_filter": ["start", "output", "completed"]}).json
    told = Outbox(parts.redis, prefix=parts.settings.redis_prefix).of_job(made["id"])
    assert [delivery.event for delivery in told] == [Event.START, Event.OUTPUT, Event.COMPLETED]
    assert told[-1].job.status is Status.SUCCEEDED and told[-1].job.reused_from is not None


def test_one_key_answers_with_one_reused_prediction(parts: Parts) -> None:
    parts.drawn()
    first, again = (parts.order(Idempotency_Key="order-17") for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json == again.json and first.json["status"] == "succeeded"


def test_many_at_once_get_a_picture_each(parts: Parts) -> None:
    first, made = parts.drawn(), []
    threads = [
        threading.Thread(target=lambda key: made.append(parts.order(Idempotency_Key=key).json), args=(f"k{n}",))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({prediction["output"] for prediction in made}) == 8
    assert {prediction["status"] for prediction in made} == {"succeeded"}
    assert first in {prediction["reused_from"] for prediction in made}


# -- removal


def test_a_deleted_prediction_keeps_its_row_and_nothing_else(parts: Parts) -> None:
    job_id = parts.drawn()
    before = parts.read(job_id)
    assert before["expires_at"] > before["completed_at"]
    for _ in range(2):
        deleted = parts.delete(job_id)
        assert (deleted.status_code, deleted.json["data_removed"]) == (200, True)
    row = parts.read(job_id)
    assert (row["status"], row["input"], row["output"], row["logs"]) == ("succeeded", {}, None, "")
    assert (row["expires_at"], row["composition"], row["warnings"], row["thumbnails"]) == (None, None, [], [])
    assert (row["seed"], row["metrics"], row["provenance"]) == (7, before["metrics"], WEIGHTS)
    assert "stream" not in row["urls"]
    for address in (before["output"], *before["thumbnails"]):
        gone = parts.client.get(address)
        assert (gone.status_code, gone.json["code"]) == (410, "gone")
    assert parts.storage.keys(outputs_prefix(job_id)) == []
    assert MIX not in str(parts.redis.hgetall(f"{parts.settings.redis_prefix}job:{job_id}"))
    listed = parts.client.get("/v1/predictions", headers={"Authorization": SHOP}).json["results"]
    assert [prediction["id"] for prediction in listed] == [job_id]


def test_only_its_owner_deletes_a_prediction(parts: Parts) -> None:
    job_id = parts.drawn()
    assert parts.delete(job_id, token=OTHER).status_code == 404
    assert parts.delete("unknown").status_code == 404
    assert parts.client.delete(f"/v1/predictions/{job_id}").status_code == 401
    assert parts.read(job_id)["data_removed"] is False


def test_a_waiting_prediction_is_called_off_and_removed(parts: Parts) -> None:
    job_id = str(parts.order().json["id"])
    deleted = parts.delete(job_id)
    assert (deleted.status_code, deleted.json["status"], deleted.json["data_removed"]) == (200, "canceled", True)


def test_a_running_prediction_is_called_off_and_removed_when_its_worker_lets_go(parts: Parts) -> None:
    job_id = str(parts.order().json["id"])
    job = parts.store.claim(job_id, worker="w", delivery_token="1")
    assert job is not None
    deleted = parts.delete(job_id)
    assert (deleted.status_code, deleted.json["status"], deleted.json["data_removed"]) == (202, "processing", False)
    parts.sweep().data()
    assert parts.read(job_id)["input"] != {}
    parts.store.let_go(job_id, job.fence)
    parts.sweep().data()
    row = parts.read(job_id)
    assert (row["status"], row["data_removed"], row["input"]) == ("canceled", True, {})


def test_the_sweep_removes_what_is_due_and_later_the_row(parts: Parts) -> None:
    kept, due = parts.drawn(seed=1), parts.drawn(seed=2)
    parts.make_due("expiring", due)
    parts.sweep().data()
    assert [parts.read(job_id)["data_removed"] for job_id in (kept, due)] == [False, True]
    assert len(parts.storage.keys(outputs_prefix(kept))) == 2 and parts.storage.keys(outputs_prefix(due)) == []
    parts.sweep().rows()
    assert parts.read(due)["id"] == due
    parts.make_due("rows", due)
    parts.sweep().rows()
    assert parts.read(due)["status"] == 404
    assert parts.read(kept)["status"] == "succeeded"


def test_a_late_removal_does_not_touch_what_was_drawn_after_the_job_was_queued_again(parts: Parts) -> None:
    job_id, fences = str(parts.order().json["id"]), range(1, parts.settings.max_attempts + 1)
    for fence in fences:
        parts.store.claim(job_id, worker="w", delivery_token=str(fence))
        parts.storage.put(output_key(job_id, fence, 0, "png"), PICTURE, content_type="image/png", metadata={})
        parts.store.expire(job_id, fence=fence)
    parts.storage.put(f"{outputs_prefix(job_id)}stray.txt", b"by hand", content_type="text/plain", metadata={})
    dead = parts.store.get(job_id)
    parts.store.requeue(job_id)
    drawn = parts.draw(job_id)
    assert (dead.status, drawn.status) == (Status.FAILED, Status.SUCCEEDED)
    remove_leftovers(dead, parts.store, parts.storage)
    assert drawn.result is not None
    assert parts.storage.keys(outputs_prefix(job_id)) == sorted(file.key for file in drawn.result.files)
    assert parts.redis.zscore(f"{parts.settings.redis_prefix}leftovers", job_id) is not None
    assert not remove_data(dead, parts.store, parts.storage)
    assert parts.client.get(parts.read(job_id)["output"]).data == PICTURE


def test_leftovers_go_and_what_the_record_names_stays(parts: Parts) -> None:
    job_id = parts.drawn()
    published = parts.storage.keys(outputs_prefix(job_id))
    for key in (output_key(job_id, 0, 0, "png"), thumbnail_key(job_id, 0, 0)):
        parts.storage.put(key, b"left over", content_type="image/png", metadata={})
    parts.make_due("leftovers", job_id)
    parts.sweep().leftovers()
    assert parts.storage.keys(outputs_prefix(job_id)) == published


def test_without_storage_nothing_is_forgotten(parts: Parts) -> None:
    job_id = parts.drawn()
    away = connect_storage(parts.settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{free_block(1)[0]}"}))
    parts.make_due("expiring", job_id)
    with pytest.raises(StorageUnavailable):
        replace(parts.sweep(), storage=away).data()
    assert parts.read(job_id)["data_removed"] is False
    parts.sweep().data()
    assert parts.read(job_id)["data_removed"] is True
