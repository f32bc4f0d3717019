from __future__ import annotations

import re
from typing import Any

import fakeredis
import pytest
from flask import Flask
from flask.testing import FlaskClient
from replicate.account import Account
from replicate.deployment import Deployment
from replicate.model import Model
from replicate.version import Version

from api.operations import OPERATIONS, UNDESCRIBED
from api.server import create_app
from shared.job_store import JobStore
from shared.settings import Settings
from shared.worker_registry import WorkerRegistry
from tests.contracts.api import MIX, MODEL, idle_storage


@pytest.fixture
def app() -> Flask:
    redis = fakeredis.FakeRedis(decode_responses=True)
    store = JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)
    workers = WorkerRegistry(redis, prefix="test:", ttl_s=15)
    return create_app(Settings(), store=store, enqueue=lambda *_, **__: None, storage=idle_storage(), workers=workers)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    found = client.get("/openapi.json").json
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("base", ["/v1", "/v1/v1", ""])
def test_the_official_classes_read_what_is_said(client: FlaskClient, base: str) -> None:
    model = Model(**client.get(f"{base}/models/{MODEL}").json)
    assert (model.id, model.run_count, model.visibility) == (MODEL, 0, "public")
    versions = client.get(f"{base}/models/{MODEL}/versions").json["results"]
    assert Version(**versions[0]) == model.latest_version
    version = Version(**client.get(f"{base}/models/{MODEL}/versions/{model.latest_version.id}").json)
    schemas = version.openapi_schema["components"]["schemas"]
    assert schemas["Output"] == {"title": "Output", "type": "string", "format": "uri"}
    assert schemas["Input"]["required"] == ["prompt"]
    assert Account(**client.get(f"{base}/account").json).username == "local"
    assert Deployment(**client.get(f"{base}/deployments/{MODEL}").json).current_release.model == MODEL
    assert {model["name"] for model in client.get(f"{base}/models").json["results"]} == {
        "rubber-tile-mini",
        "rubber-tile-lora-v45",
    }
    assert len(client.get(f"{base}/deployments").json["results"]) == 2


def test_a_search_finds_models_by_words(client: FlaskClient) -> None:
    found = client.open("/v1/models", method="QUERY", data="TILE two", content_type="text/plain").json["results"]
    assert [model["name"] for model in found] == ["rubber-tile-mini"]


@pytest.mark.parametrize("path", ["models/no/such", f"models/{MODEL}/versions/{'0' * 64}", "deployments/no/such"])
def test_what_is_not_here_is_a_404(client: FlaskClient, path: str) -> None:
    assert client.get(f"/v1/{path}").status_code == 404


@pytest.mark.parametrize("base", ["/v1", "/v1/v1", ""])
def test_uploads_are_answered_so_that_clients_fall_back(client: FlaskClient, base: str) -> None:
    for method, path in (("POST", "/files"), ("GET", "/files"), ("GET", "/files/abc"), ("DELETE", "/files/abc")):
        refused = client.open(base + path, method=method)
        assert (refused.status_code, refused.headers["x-should-retry"]) == (501, "false")


def test_the_document_describes_every_route(app: Flask, document: dict[str, Any]) -> None:
    first = {rule.endpoint for rule in app.url_map.iter_rules() if "@" not in rule.endpoint}
    assert first - UNDESCRIBED == set(OPERATIONS)
    described = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}
    assert described == {endpoint.rpartition(".")[2] for endpoint in OPERATIONS}
    assert "/v1/predictions/{prediction_id}/cancel" in document["paths"]


def walk(node: Any) -> list[dict[str, Any]]:
    """Every object inside a document."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return ([node] if isinstance(node, dict) else []) + [found for item in inner for found in walk(item)]


def test_the_document_is_openapi_3_0(document: dict[str, Any]) -> None:
    assert re.fullmatch(r"3\.0\.\d", document["openapi"])
    schemas = document["components"]["schemas"]
    for node in walk(document):
        if "$ref" in node:
            assert set(node) == {"$ref"}
            assert node["$ref"].removeprefix("#/components/schemas/") in schemas
        assert not {"$defs", "const", "prefixItems"} & set(node)
        assert node.get("type") != "null"
        assert not isinstance(node.get("exclusiveMinimum", False), float)


def test_schemas_name_the_fields_that_answers_have(client: FlaskClient, document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    created = client.post("/v1/predictions", json={"version": MODEL, "input": {"prompt": MIX}})
    prediction = schemas["Prediction"]
    assert set(created.json) == set(prediction["required"])
    assert set(prediction["properties"]) - set(created.json) == {"deployment", "webhook", "webhook_events_filter"}
    assert prediction["properties"]["output"]["nullable"] is True
    problem = client.get("/v1/predictions/unknown").json
    assert set(problem) <= set(schemas["Problem"]["properties"])
    assert set(schemas["Problem"]["required"]) <= set(problem)
    for path, name in ((f"/v1/models/{MODEL}", "Model"), ("/v1/account", "Caller"), ("/healthz", "Health")):
        assert set(client.get(path).json) == set(schemas[name]["properties"])


def test_the_input_that_is_described_is_the_input_that_is_checked(client: FlaskClient, document: dict[str, Any]) -> None:
    described = document["components"]["schemas"]["PredictionInput"]["properties"]
    assert (described["seed"]["minimum"], described["seed"]["maximum"]) == (-1, 2**32 - 1)
    assert described["output_format"]["enum"] == ["png", "jpg", "jpeg", "webp"]
    for name, value in (("seed", described["seed"]["maximum"]), ("output_quality", described["output_quality"]["maximum"])):
        for given, status in ((value, 201), (value + 1, 422)):
            body = {"version": MODEL, "input": {"prompt": MIX, name: given}}
            assert client.post("/v1/predictions", json=body).status_code == status
