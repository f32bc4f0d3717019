"""The API's description at /openapi.json, put together from the routes themselves and the types that they answer with."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Blueprint, Flask, Response, current_app
from werkzeug.routing import Rule

from api import resources
from api.params import PredictionRequest
from api.problems import MEDIA_TYPE, Problem
from api.responses import json_response
from api.schemas import OPENAPI_VERSION, schemas_of
from shared.wire import Prediction

blueprint = Blueprint("openapi", __name__)

TYPES: tuple[Any, ...] = (
    Prediction,
    PredictionRequest,
    Problem,
    resources.Caller,
    resources.DeploymentPage,
    resources.Hardware,
    resources.Health,
    resources.ModelPage,
    resources.PredictionPage,
    resources.Readiness,
    resources.VersionPage,
    resources.WebhookSecret,
)
"""What requests and answers are made of; the types inside these come with them. A schema has the name of its class."""

STATUS_TEXTS = {
    200: "As it is now",
    201: "Recorded",
    202: "To be removed when it has ended",
    204: "Nothing more",
    206: "The part asked for",
    304: "Unchanged",
    503: "Not ready",
}

EXAMPLE_REQUEST = {
    "version": "granule/rubber-tile-mini",
    "input": {"prompt": "50% red, 30% black, 20% pearl", "seed": 42},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """What a view's code does not say by itself: its answers by status (a type's name, a media type, or None for no body),
    the headers and query parameters it reads, whether it takes a prediction's body, and whether it needs a token."""

    answers: dict[int, str | None]
    headers: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    takes_body: bool = False
    public: bool = False


CREATE = Operation(
    {201: "Prediction", 200: "Prediction"},
    headers=("Prefer", "Idempotency-Key", "Cancel-After", "X-Priority", "Cache-Control"),
    takes_body=True,
)
PAGE_QUERY = ("cursor", "created_after", "created_before", "source")

OPERATIONS: dict[str, Operation] = {
    "predictions.create_prediction": CREATE,
    "predictions.put_prediction": CREATE,
    "predictions.list_predictions": Operation({200: "PredictionPage"}, query=PAGE_QUERY),
    "predictions.get_prediction": Operation({200: "Prediction"}),
    "predictions.cancel_prediction": Operation({200: "Prediction"}),
    "predictions.delete_prediction": Operation({200: "Prediction", 202: "Prediction"}),
    "models.list_models": Operation({200: "ModelPage"}),
    "models.get_model": Operation({200: "Model"}),
    "models.create_model_prediction": CREATE,
    "models.list_versions": Operation({200: "VersionPage"}),
    "models.get_version": Operation({200: "Version"}),
    "models.list_deployments": Operation({200: "DeploymentPage"}),
    "models.get_deployment": Operation({200: "Deployment"}),
    "models.create_deployment_prediction": CREATE,
    "models.list_hardware": Operation({200: "[Hardware]"}),
    "models.get_account": Operation({200: "Caller"}),
    "models.get_webhook_secret": Operation({200: "WebhookSecret"}),
    "files.get_file": Operation(
        {200: "image/*", 206: "image/*", 304: None}, headers=("Range", "If-None-Match", "If-Range"), public=True
    ),
    "stream.stream_prediction": Operation({200: "text/event-stream", 204: None}, headers=("Last-Event-ID",), public=True),
    "health.healthz": Operation({200: "Health"}, public=True),
    "health.readyz": Operation({200: "Readiness", 503: "Readiness"}, public=True),
    "openapi.get_openapi": Operation({200: "{}"}, public=True),
}
UNDESCRIBED = frozenset(
    {"models.search_models", "files.preflight_file", "stream.preflight_stream", "files.upload_file", "static"}
)
"""QUERY is no method that OpenAPI 3.0 knows; the others are answers to browsers and to clients' probes."""


@blueprint.get("/openapi.json")
def get_openapi() -> Response:
    """Describe this API as an OpenAPI document."""
    return json_response(document(current_app))


def document(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI document of an app: every route in `OPERATIONS`, under its first address."""
    paths: dict[str, Any] = {}
    for rule in app.url_map.iter_rules():
        operation = OPERATIONS.get(rule.endpoint)
        if operation is None:
            continue
        address = rule.rule.replace("<", "{").replace(">", "}")
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            paths.setdefault(address, {})[method.lower()] = _describe(app, rule, operation)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "Granule",
            "version": _release(),
            "description": "Pictures of rubber tiles by an asynchronous job queue that speaks Replicate's wire.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe(app: Flask, rule: Rule, operation: Operation) -> dict[str, Any]:
    texts = {"path": sorted(rule.arguments), "header": operation.headers, "query": operation.query}
    described: dict[str, Any] = {
        "operationId": rule.endpoint.rpartition(".")[2],
        "summary": (inspect.getdoc(app.view_functions[rule.endpoint]) or "").partition("\n")[0],
        "tags": [rule.endpoint.partition(".")[0]],
        "parameters": [
            {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}}
            for place, names in texts.items()
            for name in names
        ],
        "responses": {str(status): _response(status, content) for status, content in operation.answers.items()}
        | {"default": {"description": "An error", "content": {MEDIA_TYPE: {"schema": _ref("Problem")}}}},
        "security": [] if operation.public else [{"token": []}],
    }
    if operation.takes_body:
        content = {"application/json": {"schema": _ref("PredictionRequest"), "example": EXAMPLE_REQUEST}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _response(status: int, content: str | None) -> dict[str, Any]:
    described: dict[str, Any] = {"description": STATUS_TEXTS[status]}
    if content is None:
        return described
    if "/" in content:
        described["content"] = {content: {"schema": {"type": "string", "format": "binary"}}}
    elif content == "{}":
        described["content"] = {"application/json": {"schema": {"type": "object"}}}
    elif content.startswith("["):
        described["content"] = {"application/json": {"schema": {"type": "array", "items": _ref(content.strip("[]"))}}}
    else:
        described["content"] = {"application/json": {"schema": _ref(content)}}
    return described


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


@cache
def _schemas() -> dict[str, Any]:
    return schemas_of(TYPES)


def _release() -> str:
    try:
        return version("granule")
    except PackageNotFoundError:  # run from the source tree
        return "0"
