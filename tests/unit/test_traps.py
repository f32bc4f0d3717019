"""What official clients trip over and no other test here states: fields, held answers, addresses."""

from __future__ import annotations

import re
import threading
import time

import fakeredis
import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from replicate.client import Client
from replicate.helpers import FileOutput, transform_output
from replicate.prediction import Prediction as OfficialPrediction

from api.pages import PAGE_SIZE
from api.server import create_app
from shared.job_store import JobStore
from shared.jobs import JobError, Status, new_id
from shared.settings import Settings
from shared.wire import WIRE_STATUS
from tests.contracts.api import MIX, MODEL, idle_storage
from tests.contracts.jobs import new_result

BODY = {"version": MODEL, "input": {"prompt": MIX}}
PUBLIC = "https://tiles.example.com/granule"


@pytest.fixture
def store() -> JobStore:
    return JobStore(fakeredis.FakeRedis(decode_responses=True), prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)


def app_with(store: JobStore, **changes: object) -> Flask:
    settings = Settings(redis_prefix="test:", **changes)  # type: ignore[arg-type]
    return create_app(settings, store=store, enqueue=lambda *_, **__: None, storage=idle_storage())


@pytest.fixture
def client(store: JobStore) -> FlaskClient:
    return app_with(store).test_client()


def test_aborted_is_never_said() -> None:
    assert set(WIRE_STATUS) == set(Status)
    assert set(WIRE_STATUS.values()) == {"starting", "processing", "succeeded", "failed", "canceled"}


def test_an_id_has_the_form_of_replicates() -> None:
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch("[a-z2-7]{26}", each) for each in ids)


def test_addresses_are_strings_or_left_out(client: FlaskClient, store: JobStore) -> None:
    made = client.post("/v1/predictions", json=BODY).json
    assert set(made["urls"]) == {"get", "cancel", "web", "stream"}
    store.cancel(made["id"])
    store.remove_data(store.get(made["id"]))
    removed = client.get(f"/v1/predictions/{made['id']}").json
    assert set(removed["urls"]) == {"get", "cancel", "web"}
    for prediction in (made, removed):
        assert all(isinstance(url, str) for url in prediction["urls"].values())
        assert OfficialPrediction(**prediction).urls == prediction["urls"]


@pytest.mark.parametrize("outcome", ["failed", "canceled", "succeeded"])
def test_a_hold_ends_with_every_end(client: FlaskClient, store: JobStore, outcome: str) -> None:
    def work() -> None:
        while not (waiting := store.list_jobs("local")):
            time.sleep(0.01)
        job = store.claim(waiting[0].id, worker="w", delivery_token="1")
        assert job is not None
        if outcome == "succeeded":
            store.succeed(job.id, job.fence, new_result())
        elif outcome == "failed":
            store.fail(job.id, job.fence, JobError("render_failed", "it broke"))
        else:
            store.let_go(job.id, job.fence)

    worker = threading.Thread(target=work)
    worker.start()
    held = client.post("/v1/predictions", json=BODY, headers={"Prefer": "wait=20"})
    worker.join()
    assert (held.status_code, held.json["status"]) == (201, outcome)
    assert (held.json["queue_position"], held.json["eta_s"], held.json["queue_note"]) == (None, None, None)
    assert held.json["output"] is None or outcome == "succeeded"


def test_a_create_without_prefer_is_answered_at_once(client: FlaskClient) -> None:
    started_s = time.monotonic()
    made = client.post("/v1/predictions", json=BODY, headers={"Prefer": "respond-async"})
    assert (made.status_code, made.json["status"]) == (201, "starting")
    assert time.monotonic() - started_s < 1


def test_every_address_starts_with_the_public_one_and_the_picture_is_wrapped(store: JobStore) -> None:
    client = app_with(store, public_url=PUBLIC + "/", api_tokens=(SecretStr("shop:shop-token"),)).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = "Bearer shop-token"
    created = client.post("/v1/predictions", json=BODY)
    job = store.claim(created.json["id"], worker="w", delivery_token="1")
    assert job is not None
    store.succeed(job.id, job.fence, new_result())
    done = client.get(f"/v1/predictions/{job.id}").json
    assert created.headers["Location"] == f"{PUBLIC}/v1/predictions/{job.id}"
    for _ in range(PAGE_SIZE):
        client.post("/v1/predictions", json=BODY)
    assert client.get("/v1/predictions").json["next"].startswith(f"{PUBLIC}/v1/predictions?cursor=")
    assert all(url.startswith(f"{PUBLIC}/v1/") for url in (done["output"], *done["urls"].values()))
    assert not done["urls"]["stream"].removeprefix(PUBLIC).startswith("/v1/files/")
    official = Client(api_token="any", base_url=PUBLIC)
    picture = transform_output(done["output"], official)
    official._client.close()
    assert isinstance(picture, FileOutput) and picture.url == done["output"]


def test_an_empty_list_is_a_page(client: FlaskClient) -> None:
    assert client.get("/v1/predictions").json == {"previous": None, "next": None, "results": []}
