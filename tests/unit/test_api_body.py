"""What a create accepts and refuses before anything is written."""

from __future__ import annotations

import base64
import time

import fakeredis
import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from redis import Redis

from api.server import create_app
from shared.job_store import JobStore
from shared.jobs import Event
from shared.manifest import load_catalog
from shared.settings import Settings
from shared.worker_registry import WorkerRegistry
from tests.contracts.api import MIX, MODEL, OLD_VERSION, idle_storage

SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of a test secret").decode()
HOOK = "https://shop.example.com/hook"


@pytest.fixture
def redis() -> Redis:
    return fakeredis.FakeRedis(decode_responses=True)


@pytest.fixture
def store(redis: Redis) -> JobStore:
    return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)


def client_with(redis: Redis, store: JobStore, **changes: object) -> FlaskClient:
    settings = Settings(redis_prefix="test:", **changes)
    workers = WorkerRegistry(redis, prefix="test:", ttl_s=15)
    app = create_app(settings, store=store, enqueue=lambda *_, **__: None, storage=idle_storage(), workers=workers)
    return app.test_client()


@pytest.fixture
def client(redis: Redis, store: JobStore) -> FlaskClient:
    return client_with(redis, store, webhook_secret=SecretStr(SECRET))


def body(**changes: object) -> dict[str, object]:
    return {"version": MODEL, "input": {"prompt": MIX}} | changes


@pytest.mark.parametrize("base", ["/v1/predictions", "/v1/v1/predictions", "/predictions", "/v1/predictions/", "/v1/jobs"])
def test_every_address_that_some_client_builds(client: FlaskClient, base: str) -> None:
    created = client.post(base, json=body())
    assert created.status_code == 201
    assert created.json["urls"]["get"] == f"http://localhost/v1/predictions/{created.json['id']}"
    assert [job["id"] for job in client.get(base).json["results"]] == [created.json["id"]]
    assert client.get(f"{base.rstrip('/')}/{created.json['id']}").status_code == 200
    assert client.post(f"{base.rstrip('/')}/{created.json['id']}/cancel").json["status"] == "canceled"


@pytest.mark.parametrize(
    "host", ["tiles_api:8000", "127.0.0.1:8000", "[::1]:8000", "xn--90acagb0b5c.xn--p1ai", "Tiles.example.com"]
)
def test_addresses_are_those_that_the_request_came_to(redis: Redis, store: JobStore, host: str) -> None:
    client = client_with(redis, store, api_tokens=(SecretStr("shop:one"),))
    created = client.post("/v1/predictions", json=body(), headers={"Host": host, "Authorization": "Bearer one"})
    assert (
        created.json["urls"]["get"]
        == created.headers["Location"]
        == f"http://{host.lower()}/v1/predictions/{created.json['id']}"
    )


@pytest.mark.parametrize("host", ["a b", "a/b", "user@tiles.example.com", "tiles.example.com:x", "плитка.рф"])
def test_a_host_that_is_none_is_refused_before_anything_is_written(redis: Redis, store: JobStore, host: str) -> None:
    client = client_with(redis, store, api_tokens=(SecretStr("shop:one"),))
    headers = {"Host": host.encode().decode("latin-1"), "Authorization": "Bearer one"}
    refused = client.post("/v1/predictions", json=body(), headers=headers)
    assert (refused.status_code, refused.json["invalid_fields"][0]["field"]) == (422, "Host")
    assert redis.keys() == []


@pytest.mark.parametrize(
    "version", [OLD_VERSION, f"nauslava/rubber-tile-lora-v45:{OLD_VERSION}", "nauslava/rubber-tile-lora-v45"]
)
def test_three_spellings_of_a_version(client: FlaskClient, version: str) -> None:
    created = client.post("/v1/predictions", json=body(version=version)).json
    assert (created["model"], created["version"]) == ("nauslava/rubber-tile-lora-v45", OLD_VERSION)


@pytest.mark.parametrize("kind", ["models", "deployments"])
def test_the_model_may_stand_in_the_address(client: FlaskClient, kind: str) -> None:
    path = f"/v1/{kind}/{MODEL}/predictions"
    made = client.post(path, json={"input": {"prompt": MIX}}).json
    assert (made["model"], made.get("deployment")) == (MODEL, MODEL if kind == "deployments" else None)
    assert client.post(path, json=body()).status_code == 201
    other = client.post(path, json=body(version=OLD_VERSION))
    assert (other.status_code, other.json["title"]) == (422, "Invalid version or not permitted")
    assert client.post(f"/v1/{kind}/nobody/nothing/predictions", json={"input": {"prompt": MIX}}).status_code == 404


def test_a_version_that_another_model_stands_in_for(redis: Redis, store: JobStore) -> None:
    old = "f" * 64
    client = client_with(redis, store, version_aliases=(f"{old}={MODEL}",))
    made = client.post("/v1/predictions", json=body(version=old)).json
    assert (made["model"], made["warnings"]) == (MODEL, [f"version {old} is served by {MODEL} on this server"])
    assert client.post("/v1/predictions", json=body(version=made["version"])).json["warnings"] == []
    assert client.get(f"/v1/models/{MODEL}/versions/{old}").json["id"] == old


def test_unknown_keys_inside_the_input_are_passed_over_and_echoed(client: FlaskClient) -> None:
    given = {"prompt": MIX, "size": "1024x1024", "num_outputs": 1, "num_inference_steps": 500, "nested": {"a": [1.5]}}
    created = client.post("/v1/predictions", json=body(input=given))
    assert created.status_code == 201
    assert created.json["input"] == given
    render = load_catalog(Settings().models_dir).by_slug(MODEL).render
    assert created.json["progress"]["steps"] == round(render.num_inference_steps * render.strength)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"extra": 1}, "extra"),
        ({"version": None}, "version"),
        ({"version": "0" * 64}, "version"),
        ({"version": 7}, "version"),
        ({"input": None}, "input"),
        ({"input": {}}, "input.prompt"),
        ({"input": {"prompt": 5}}, "input.prompt"),
        ({"input": {"prompt": "50% red"}}, "input.prompt"),
        ({"input": {"prompt": ""}}, "input.prompt"),
        ({"input": {"prompt": "x" * 2001}}, "input.prompt"),
        ({"input": {"prompt": MIX, "negative_prompt": "blurry, " * 60}}, "input.negative_prompt"),
        ({"input": {"prompt": MIX, "seed": "7"}}, "input.seed"),
        ({"input": {"prompt": MIX, "seed": True}}, "input.seed"),
        ({"input": {"prompt": MIX, "seed": 1.5}}, "input.seed"),
        ({"input": {"prompt": MIX, "seed": -2}}, "input.seed"),
        ({"input": {"prompt": MIX, "seed": 2**32}}, "input.seed"),
        ({"input": {"prompt": MIX, "output_format": "gif"}}, "input.output_format"),
        ({"input": {"prompt": MIX, "output_quality": 0}}, "input.output_quality"),
        ({"webhook": "http://127.0.0.1/hook"}, "webhook"),
        ({"webhook_completed": "http://127.0.0.1/hook"}, "webhook_completed"),
        ({"webhook": HOOK, "webhook_events_filter": ["done"]}, "webhook_events_filter.0"),
        ({"webhook": HOOK, "webhook_events_filter": "completed"}, "webhook_events_filter"),
    ],
)
def test_a_refusal_names_the_field_and_writes_nothing(
    client: FlaskClient, redis: Redis, changes: dict[str, object], field: str
) -> None:
    refused = client.post("/v1/predictions", json=body(**changes))
    assert refused.status_code == 422
    assert refused.content_type == "application/problem+json"
    assert {"type", "title", "status", "detail", "code", "invalid_fields"} == set(refused.json)
    assert field in [invalid["field"] for invalid in refused.json["invalid_fields"]]
    assert all(invalid["type"] and invalid["description"] for invalid in refused.json["invalid_fields"])
    assert redis.keys() == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b"\xff",
        b"[" * 60_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_a_body_that_is_no_json_object(client: FlaskClient, data: bytes) -> None:
    refused = client.post("/v1/predictions", data=data, content_type="application/json")
    assert (refused.status_code, refused.json["invalid_fields"][0]["field"]) == (422, "body")


def test_limits_of_the_body_and_its_type(client: FlaskClient) -> None:
    assert client.post("/v1/predictions", json=body(version="x" * 70_000)).status_code == 413
    form = client.post("/v1/predictions", data={"prompt": MIX})
    assert (form.status_code, form.content_type) == (415, "application/problem+json")
    assert client.post("/v1/predictions", json=body(), headers={"Idempotency-Key": "a b"}).status_code == 422


@pytest.mark.parametrize("text", ["4", "4s", "0m4s", "soon", "", "1h30", "30m1h", "-30", "1.5", "s", "9" * 9])
def test_a_deadline_of_another_form_is_refused(client: FlaskClient, text: str) -> None:
    refused = client.post("/v1/predictions", json=body(), headers={"Cancel-After": text})
    assert (refused.status_code, refused.json["invalid_fields"][0]["field"]) == (422, "Cancel-After")


@pytest.mark.parametrize(
    ("text", "expected_s"), [("5", 5), ("30s", 30), ("1m30s", 90), ("2h30m", 9000), ("2h", 7200), (" 90 ", 90)]
)
def test_a_deadline_is_read_in_every_form(client: FlaskClient, store: JobStore, text: str, expected_s: int) -> None:
    made = client.post("/v1/predictions", json=body(), headers={"Cancel-After": text}).json
    assert store.get(made["id"]).spec.cancel_after_s == expected_s


def test_addresses_and_methods_that_are_none(client: FlaskClient) -> None:
    for method, path, status in (("get", "/v1/nothing", 404), ("delete", "/v1/predictions", 405)):
        answer = getattr(client, method)(path)
        assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert client.delete("/v1/predictions").json["detail"] == "this address answers GET, HEAD, OPTIONS, POST"
    assert client.get("/v1/predictions/unknown").json["detail"] == "no prediction 'unknown'"
    assert client.get("/v1/predictions?cursor=%00").json["invalid_fields"][0]["field"] == "cursor"
    assert client.get("/v1/predictions?created_after=yesterday").json["invalid_fields"][0]["field"] == "created_after"


@pytest.mark.parametrize(
    ("changes", "events"),
    [
        ({"webhook": HOOK}, [Event.OUTPUT, Event.COMPLETED]),
        ({"webhook": HOOK, "webhook_events_filter": ["start", "start", "completed"]}, [Event.START, Event.COMPLETED]),
        ({"webhook_completed": HOOK}, [Event.COMPLETED]),
    ],
)
def test_a_webhook_is_kept_with_its_events(
    client: FlaskClient, store: JobStore, changes: dict[str, object], events: list[Event]
) -> None:
    made = client.post("/v1/predictions", json=body(**changes)).json
    spec = store.get(made["id"]).spec
    assert (spec.webhook, spec.webhook_events) == (made["webhook"], made["webhook_events_filter"]) == (HOOK, events)


def test_without_a_signing_secret_webhooks_are_refused(redis: Redis, store: JobStore) -> None:
    client = client_with(redis, store)
    refused = client.post("/v1/predictions", json=body(webhook=HOOK))
    assert (refused.status_code, refused.json["code"]) == (422, "webhook_url_refused")
    assert client.get("/v1/webhooks/default/secret").status_code == 404


def test_what_the_worker_gets(client: FlaskClient, store: JobStore) -> None:
    given = {"prompt": "50% красный, 50% GRAY", "seed": 5, "output_format": "jpeg", "output_quality": 80, "negative_prompt": ""}
    spec = store.get(client.post("/v1/predictions", json=body(version=OLD_VERSION, input=given)).json["id"]).spec
    assert spec.input == given
    assert spec.mix == [("red", 50.0), ("gray", 50.0)]
    assert spec.render.prompt.startswith("ohwx_rubber_tile <s0><s1>, 50% red, 50% gray, photorealistic")
    assert (spec.render.seed, spec.render.output_format, spec.render.output_quality) == (5, "jpg", 80)
    assert spec.render.negative_prompt == ""
    assert spec.filename.endswith("_50red-50gray_seed5.jpg")
    default = store.get(client.post("/v1/predictions", json=body(version=OLD_VERSION)).json["id"]).spec
    assert default.render.negative_prompt.startswith("blurry")
    assert (default.render.width_px, default.render.guidance_scale, default.render.output_format) == (1024, 7.0, "png")


def test_words_that_are_no_colour_warn_or_are_refused_as_the_operator_wants(redis: Redis, store: JobStore) -> None:
    given = {"prompt": "50% red, 50% green"}
    warned = client_with(redis, store).post("/v1/predictions", json=body(input=given)).json
    assert "green apple" in warned["warnings"][0]
    refused = client_with(redis, store, prompt_policy="strict").post("/v1/predictions", json=body(input=given))
    assert (refused.status_code, refused.json["code"]) == (422, "invalid_prompt")


def test_a_request_keeps_its_name(client: FlaskClient) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": "order-17"}).headers["X-Request-Id"] == "order-17"
    names = {client.get("/nothing", headers={"X-Request-Id": "a b"}).headers["X-Request-Id"] for _ in range(2)}
    assert len(names) == 2


@pytest.mark.parametrize(
    "raw", ['{"input": {"prompt": "red", "x": [1e999]}}', '{"input": {"prompt": "red", "x": -1e999}}', "[" * 900 + "]" * 900]
)
def test_what_no_answer_could_hold_is_refused(client: FlaskClient, redis: Redis, raw: str) -> None:
    refused = client.post("/v1/predictions", data=raw, content_type="application/json")
    assert refused.status_code == 422
    deep: list[object] = []
    for _ in range(40):
        deep = [deep]
    assert client.post("/v1/predictions", json=body(input={"prompt": MIX, "x": deep})).status_code == 422
    assert redis.keys("*job:*") == []


def test_without_a_place_to_wait_a_create_is_answered_at_once(redis: Redis, store: JobStore) -> None:
    started_s = time.monotonic()
    answer = client_with(redis, store, holds_max=0).post("/v1/predictions", json=body(), headers={"Prefer": "wait=30"})
    assert answer.status_code == 201 and answer.get_json()["status"] == "starting"
    assert time.monotonic() - started_s < 5
