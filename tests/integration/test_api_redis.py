"""How the API deals with Redis: how often it asks, and what it says when nobody answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.server import create_app
from infra.local.ports import free_block
from shared.job_store import connect_store
from shared.jobs import Output, Result, new_id
from shared.queue import message_lists
from shared.redis_client import connect
from shared.settings import Settings
from shared.storage import connect_storage
from tests.contracts.api import MIX, MODEL
from tests.integration.conftest import S3Location

HOUSEKEEPING = ("PING", "AUTH", "SELECT", "HELLO", "CLIENT", "INFO")
"""What the client libraries send when a connection is new or was idle."""


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url, timeout_s=5) as client:
        yield client


@pytest.fixture
def client(redis_url: str) -> FlaskClient:
    return create_app(Settings(redis_url=redis_url)).test_client()


def commands_of(redis: Redis, action: Callable[[], object]) -> list[str]:
    """The commands that reach the server while `action` runs, without those inside scripts."""
    seen: list[str] = []
    with redis.monitor() as monitor:
        listening = threading.Event()

        def listen() -> None:
            listening.set()
            for entry in monitor.listen():
                if entry["command"] == "ECHO the-end":
                    return
                if entry["client_type"] != "lua" and entry["command"].split()[0].upper() not in HOUSEKEEPING:
                    seen.append(entry["command"])

        thread = threading.Thread(target=listen)
        thread.start()
        listening.wait()
        action()
        redis.echo("the-end")
        thread.join()
    return seen


def test_round_trips_of_a_create_and_a_read(client: FlaskClient, redis: Redis) -> None:
    body = {"version": MODEL, "input": {"prompt": MIX}}

    def create() -> str:
        return str(client.post("/v1/predictions", json=body).json["id"])

    client.get(f"/v1/predictions/{create()}")  # scripts are loaded and connections open from here on
    created = commands_of(redis, create)
    assert [command.split()[0].upper() for command in created] == ["EVALSHA", "LPUSH"]
    job_id = create()
    read = commands_of(redis, lambda: client.get(f"/v1/predictions/{job_id}"))
    assert [command.split()[0].upper() for command in read] == ["EVALSHA"]


def test_round_trips_of_a_counted_create_its_repeat_and_its_refusal(redis_url: str, redis: Redis) -> None:
    client = create_app(Settings(redis_url=redis_url, token_creates_per_minute=2)).test_client()
    body = {"version": MODEL, "input": {"prompt": MIX}}
    seen: list[tuple[int, list[str]]] = []

    def create(key: str) -> None:
        answers: list[int] = []
        trips = commands_of(
            redis,
            lambda: answers.append(client.post("/v1/predictions", json=body, headers={"Idempotency-Key": key}).status_code),
        )
        seen.append((answers[0], [command.split()[0].upper() for command in trips]))

    client.post("/v1/predictions", json=body)  # scripts are loaded and connections open from here on
    for key in ("a", "a", "b", "b"):
        create(key)
    made, repeated, _, refused = seen  # a first refusal loads one more script
    assert made == (201, ["EVALSHA", "EVALSHA", "LPUSH"])  # the rate, the job, its message
    # The rate and a repeat that there is not, both once more after a moment, and the time until there are more.
    assert (refused[0], len(refused[1])) == (429, 5)
    assert repeated == (200, ["EVALSHA", "EVALSHA"])


def test_a_repeat_within_the_minute_gives_its_place_back_in_a_third_round_trip(redis_url: str, redis: Redis) -> None:
    client = create_app(Settings(redis_url=redis_url, token_creates_per_minute=100)).test_client()
    body, key = {"version": MODEL, "input": {"prompt": MIX}}, {"Idempotency-Key": "a"}
    for _ in range(2):
        client.post("/v1/predictions", json=body, headers=key)
    trips = commands_of(redis, lambda: client.post("/v1/predictions", json=body, headers=key))
    assert [command.split()[0].upper() for command in trips] == ["EVALSHA"] * 3
    assert client.get("/v1/account").json["token"]["creates_remaining"] == 99


def test_round_trips_of_an_order_that_a_stored_picture_answers(redis_url: str, s3: S3Location, redis: Redis) -> None:
    settings = s3.settings(Settings(redis_url=redis_url, token_creates_per_minute=1000))
    client, store, storage = create_app(settings).test_client(), connect_store(settings, redis), connect_storage(settings)
    body = {"version": MODEL, "input": {"prompt": MIX, "seed": 7}}

    def create() -> dict[str, Any]:
        made: dict[str, Any] = client.post("/v1/predictions", json=body, headers={"Idempotency-Key": new_id()}).json
        return made

    first = create()["id"]
    job = store.claim(first, worker="w", delivery_token="1")
    assert job is not None
    storage.put("picture", b"PNG", content_type="image/png", metadata={})
    store.announce_weights(MODEL, {})
    store.succeed(first, job.fence, Result([Output("picture", "tile.png", "image/png", 3, "ab" * 32)], 1.0))
    assert create()["status"] == "succeeded"
    made: list[dict[str, Any]] = []
    trips = commands_of(redis, lambda: made.append(create()))
    assert made[0]["status"] == "succeeded"
    assert [command.split()[0].upper() for command in trips] == ["EVALSHA"] * 3  # the rate, the job, its end


def test_an_order_leaves_one_message_for_the_workers_of_its_model(client: FlaskClient, redis: Redis) -> None:
    job_id = client.post("/v1/predictions", json={"version": MODEL, "input": {"prompt": MIX}}).json["id"]
    messages = [
        message for name in message_lists(MODEL, prefix=Settings().redis_prefix) for message in redis.lrange(name, 0, -1)
    ]
    assert len(messages) == 1
    assert "granule.render" in messages[0]
    assert job_id in messages[0]


def test_without_redis_the_answer_is_503_and_comes_soon() -> None:
    settings = Settings(redis_url=f"redis://127.0.0.1:{free_block(1)[0]}/0")
    client = create_app(settings).test_client()
    body = {"version": MODEL, "input": {"prompt": MIX}}
    started_s = time.monotonic()
    for answer in (client.get("/v1/predictions/x"), client.get("/v1/predictions"), client.post("/v1/predictions", json=body)):
        assert (answer.status_code, answer.json["code"]) == (503, "store_unavailable")
        assert answer.headers["Retry-After"].isdigit()
    assert time.monotonic() - started_s < 5
