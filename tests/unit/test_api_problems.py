"""Every way to be refused, walked: each answer is a problem document that says what is wrong, and is described."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from flask.testing import FlaskClient
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from pydantic import TypeAdapter
from werkzeug.test import TestResponse

from api.examples import EXAMPLES
from api.limits import OrderLimits
from api.openapi import TYPES, document
from api.operations import OPERATIONS, SIZES, TOKEN
from api.problems import Problem, problem_response
from api.server import create_app
from api.tokens import new_entry
from infra.local.ports import free_block
from shared.job_store import JobStore
from shared.settings import Settings
from shared.storage import connect_storage
from shared.worker_registry import WorkerRegistry
from tests.contracts.api import MIX, MODEL
from tests.contracts.jobs import new_result

PREDICTIONS = "/v1/predictions"
BODY = {"version": MODEL, "input": {"prompt": MIX}}
ENTRIES: dict[str, dict[str, Any]] = {
    "shop": {},
    "viewer": {"scopes": ["read"]},
    "hasty": {"creates_per_minute": 1},
    "full": {"max_waiting_jobs": 1},
}


class Walker:
    """A caller of an API whose storage never answers, and whose Redis stops answering when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.server = fakeredis.FakeServer()
        redis = fakeredis.FakeRedis(server=self.server, decode_responses=True)
        self.store = JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)
        path = folder / "tokens.toml"
        path.write_text("".join(new_entry(name, name, entry) for name, entry in ENTRIES.items()))
        settings = Settings(api_tokens_file=path, s3_endpoint_url=f"http://127.0.0.1:{free_block(1)[0]}", streams_max=1)
        self.app = create_app(
            settings,
            store=self.store,
            enqueue=lambda *_, **__: None,
            storage=connect_storage(settings),
            workers=WorkerRegistry(redis, prefix="test:", ttl_s=15),
            limits=OrderLimits(
                SlidingWindowCounterRateLimiter(RedisStorage("redis://", connection_pool=redis.connection_pool))
            ),
        )
        self.client: FlaskClient = self.app.test_client()

    def ask(self, method: str, path: str, *, token: str = "shop", **request: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {token}"} | request.pop("headers", {})
        return self.client.open(path.removeprefix("http://localhost"), method=method, headers=headers, **request)

    def order(self, *, token: str = "shop", headers: dict[str, str] | None = None, **changes: Any) -> TestResponse:
        return self.ask("POST", PREDICTIONS, token=token, headers=headers or {}, json=BODY | changes)

    def twice(self, token: str) -> TestResponse:
        self.order(token=token)
        return self.order(token=token)

    def key_reused(self) -> TestResponse:
        self.order(headers={"Idempotency-Key": "k"})
        return self.order(headers={"Idempotency-Key": "k"}, input={"prompt": "100% red"})

    def picture(self, *, removed: bool = False, **request: Any) -> TestResponse:
        job = self.store.claim(self.order().json["id"], worker="w", delivery_token="1")
        assert job is not None
        self.store.succeed(job.id, job.fence, new_result())
        url = self.ask("GET", f"{PREDICTIONS}/{job.id}").json["output"]
        if removed:
            self.store.remove_data(self.store.get(job.id))
        return self.ask("GET", url, **request)

    def second_stream(self) -> TestResponse:
        url = self.order().json["urls"]["stream"]
        self.app.extensions["granule"].streams.acquire()
        return self.ask("GET", url)

    def without_redis(self, method: str, path: str, **request: Any) -> TestResponse:
        self.server.connected = False
        return self.ask(method, path, **request)

    def with_a_bug(self) -> TestResponse:
        del self.store._redis
        return self.ask("GET", PREDICTIONS)


Case = tuple[Callable[[Walker], TestResponse], int, str, str | None]

CASES: dict[str, Case] = {
    "no token": (lambda w: w.client.get(PREDICTIONS), 401, "unauthenticated", "Authorization"),
    "unknown token": (lambda w: w.ask("GET", PREDICTIONS, token="x"), 401, "unauthenticated", "Authorization"),
    "scope": (lambda w: w.order(token="viewer"), 403, "forbidden", "Authorization"),
    "no such address": (lambda w: w.ask("GET", "/v1/nothing"), 404, "not_found", "url"),
    "doubled slash": (lambda w: w.ask("GET", "/v1//predictions"), 404, "not_found", "url"),
    "whose list": (lambda w: w.ask("GET", f"{PREDICTIONS}?tenant=other"), 403, "forbidden", "Authorization"),
    "no such delivery": (
        lambda w: w.ask("POST", f"{PREDICTIONS}/{w.order().json['id']}/deliveries/x/redeliver"),
        404,
        "not_found",
        "delivery_number",
    ),
    "no such prediction": (lambda w: w.ask("GET", f"{PREDICTIONS}/x"), 404, "not_found", "prediction_id"),
    "no such model": (lambda w: w.ask("GET", "/v1/models/a/b"), 404, "model_unknown", "model"),
    "no such deployment": (lambda w: w.ask("GET", "/v1/deployments/a/b"), 404, "not_found", "name"),
    "no webhook secret": (lambda w: w.ask("GET", "/v1/webhooks/default/secret"), 404, "not_found", None),
    "no such file": (lambda w: w.ask("GET", "/v1/files/x/y.png"), 404, "not_found", "token"),
    "no such stream": (lambda w: w.ask("GET", "/v1/streams/x/y"), 404, "not_found", "token"),
    "wrong method": (lambda w: w.ask("PATCH", PREDICTIONS), 405, "method_not_allowed", "method"),
    "picture removed": (lambda w: w.picture(removed=True), 410, "gone", None),
    "body too large": (lambda w: w.order(webhook="x" * 70_000), 413, "body_too_large", "body"),
    "address too long": (lambda w: w.ask("GET", "/" + "a" * 4_000), 414, "url_too_long", "url"),
    "not JSON": (lambda w: w.ask("POST", PREDICTIONS, data="x"), 415, "unsupported_media_type", "Content-Type"),
    "no such range": (
        lambda w: w.picture(headers={"Range": "bytes=9-"}),
        416,
        "range_not_satisfiable",
        "Range",
    ),
    "broken JSON": (
        lambda w: w.ask("POST", PREDICTIONS, data="{", content_type="application/json"),
        422,
        "invalid_input",
        "body",
    ),
    "unknown field": (lambda w: w.order(size=1), 422, "invalid_input", "size"),
    "no version": (lambda w: w.order(version=None), 422, "invalid_input", "version"),
    "unknown version": (lambda w: w.order(version="0" * 64), 422, "model_unknown", "version"),
    "no mix": (lambda w: w.order(input={"prompt": "50% red"}), 422, "invalid_prompt", "input.prompt"),
    "wrong type": (lambda w: w.order(input={"prompt": MIX, "seed": "7"}), 422, "invalid_input", "input.seed"),
    "webhook": (lambda w: w.order(webhook="http://10.0.0.1"), 422, "webhook_url_refused", "webhook"),
    "key": (lambda w: w.order(headers={"Idempotency-Key": "a b"}), 422, "invalid_input", "Idempotency-Key"),
    "key reused": (Walker.key_reused, 422, "idempotency_conflict", "Idempotency-Key"),
    "deadline": (lambda w: w.order(headers={"Cancel-After": "soon"}), 422, "invalid_input", "Cancel-After"),
    "lane": (lambda w: w.order(headers={"X-Priority": "recovery"}), 422, "invalid_input", "X-Priority"),
    "id": (lambda w: w.ask("PUT", f"{PREDICTIONS}/a%20b", json=BODY), 422, "invalid_input", "id"),
    "cursor": (lambda w: w.ask("GET", f"{PREDICTIONS}?cursor=x"), 422, "invalid_input", "cursor"),
    "moment": (lambda w: w.ask("GET", f"{PREDICTIONS}?created_after=x"), 422, "invalid_input", "created_after"),
    "tenant": (lambda w: w.ask("GET", f"{PREDICTIONS}?tenant=a%20b"), 422, "invalid_input", "tenant"),
    "source": (lambda w: w.ask("GET", f"{PREDICTIONS}?source=x"), 422, "invalid_input", "source"),
    "minute used up": (lambda w: w.twice("hasty"), 429, "rate_limited", None),
    "queue full": (lambda w: w.twice("full"), 429, "queue_full", None),
    "streams full": (Walker.second_stream, 429, "streams_full", None),
    "headers too large": (
        lambda w: w.ask("GET", "/healthz", headers={"X-Large": "a" * 20_000}),
        431,
        "headers_too_large",
        "headers",
    ),
    "bug": (Walker.with_a_bug, 500, "internal_error", None),
    "upload": (lambda w: w.ask("POST", "/v1/files", data="x"), 501, "not_implemented", None),
    "no Redis, reading": (lambda w: w.without_redis("GET", PREDICTIONS), 503, "store_unavailable", None),
    "no Redis, ordering": (
        lambda w: w.without_redis("POST", PREDICTIONS, json=BODY, token="hasty"),
        503,
        "store_unavailable",
        None,
    ),
    "no Redis, account": (
        lambda w: w.without_redis("GET", "/v1/account", token="hasty"),
        503,
        "store_unavailable",
        None,
    ),
    "no storage": (Walker.picture, 503, "storage_unavailable", None),
}
UNDESCRIBED = {"method_not_allowed", "internal_error"}
"""What no operation answers with: no operation has been found, or a bug has."""


@pytest.mark.parametrize(("provoke", "status", "code", "field"), CASES.values(), ids=CASES)
def test_every_refusal_is_a_problem_document(
    tmp_path: Path, provoke: Callable[[Walker], TestResponse], status: int, code: str, field: str | None
) -> None:
    refused = provoke(Walker(tmp_path))
    body = TypeAdapter(Problem).validate_json(refused.data)
    assert (refused.status_code, refused.content_type) == (status, "application/problem+json")
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:granule:problem:{code}")
    assert body["title"]
    assert body["detail"]
    fields = [(invalid["field"], bool(invalid["description"])) for invalid in body.get("invalid_fields", [])]
    assert fields == ([] if field is None else [(field, True)])
    if status in (429, 503):
        assert int(refused.headers["Retry-After"]) == body["retry_after"] > 0
    if status in (500, 501):
        assert refused.headers["x-should-retry"] == "false"
    assert refused.headers["X-Request-Id"]


def test_every_refusal_is_described_and_every_description_walked() -> None:
    failures = [*SIZES, *TOKEN, *(failure for operation in OPERATIONS.values() for failure in operation.errors)]
    described = {TypeAdapter(Problem).validate_json(problem_response(failure).data)["code"] for failure in failures}
    assert described == {code for _, _, code, _ in CASES.values()} - UNDESCRIBED


def test_examples_are_of_the_types_they_stand_for() -> None:
    assert set(TYPES) - {"Problem"} <= set(EXAMPLES)
    for name in set(TYPES) & set(EXAMPLES):
        TypeAdapter(TYPES[name]).validate_python(EXAMPLES[name])


def test_the_page_shows_every_operation_and_asks_nobody_else_for_anything(tmp_path: Path) -> None:
    walker = Walker(tmp_path)
    page = walker.client.get("/docs")
    with walker.client.get("/docs.css") as style:
        assert "url(" not in style.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'")
    for path, methods in document(walker.app, "http://localhost")["paths"].items():
        for method, operation in methods.items():
            assert f'id="{operation["operationId"]}"' in page.text
            assert f"<b>{method.upper()}</b> {path}" in page.text
    assert not re.search(r"<script|<style|<img|\son[a-z]+=|style=", page.text)
    assert re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text) == ["/docs.css", "/openapi.json"]
