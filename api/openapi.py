"""The API's description at /openapi.json, put together from the routes themselves and the types that they answer with."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Blueprint, Flask, Response, current_app
from werkzeug.routing import Rule

from api import resources
from api.context import base_url
from api.examples import EXAMPLES, Failure
from api.operations import ANSWER_HEADERS, OPERATIONS, PARAMETERS, SIZES, TOKEN, Operation
from api.params import PredictionRequest
from api.problems import MEDIA_TYPE, Problem, problem_response
from api.responses import json_response
from api.schemas import OPENAPI_VERSION, schemas_of
from shared.wire import Prediction

blueprint = Blueprint("openapi", __name__)

TYPES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        Prediction,
        PredictionRequest,
        Problem,
        resources.Caller,
        resources.DeadLetters,
        resources.DeliveryPage,
        resources.DeliveryResource,
        resources.DeploymentPage,
        resources.Hardware,
        resources.Health,
        resources.ModelPage,
        resources.Overview,
        resources.PaletteColor,
        resources.PredictionPage,
        resources.Readiness,
        resources.Redelivered,
        resources.VersionPage,
        resources.WebhookSecret,
        resources.WorkerState,
    )
}
"""What requests and answers are made of; the types inside these come with them. A schema has the name of its class."""

EVENT_SCHEMA = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {
        "event": {"type": "string", "enum": ["logs", "output", "error", "done"]},
        "id": {"type": "string"},
        "data": {"type": "string"},
        "retry": {"type": "integer"},
    },
}
"""Readers of descriptions take the schema of an event stream for that of each event."""

STATUS_TEXTS = {
    200: "As it is now",
    201: "Recorded",
    202: "To be removed when it has ended",
    204: "Nothing more",
    206: "The part asked for",
    302: "To be fetched from the storage",
    304: "Unchanged",
    503: "Not ready",
}

DESCRIPTION = """\
Pictures of rubber tiles by an asynchronous job queue that speaks Replicate's wire.

Every address that begins with /v1 is served without it and with /v1/v1 too, and predictions also under /v1/jobs. Every answer
has the header X-Request-Id; every error is a problem document that names what in the request is wrong."""


@blueprint.get("/openapi.json")
def get_openapi() -> Response:
    """Describe this API as an OpenAPI document."""
    return json_response(document(current_app, base_url()))


def document(app: Flask, server_url: str) -> dict[str, Any]:
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
        "info": {"title": "Granule", "version": release(), "description": DESCRIPTION},
        "servers": [{"url": server_url}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def release() -> str:
    """Return the version of this installation, or "0" where it runs from a bare source tree."""
    try:
        return version("granule")
    except PackageNotFoundError:
        return "0"


def _describe(app: Flask, rule: Rule, operation: Operation) -> dict[str, Any]:
    summary, _, rest = (inspect.getdoc(app.view_functions[rule.endpoint]) or "").partition("\n\n")
    names = {"path": sorted(rule.arguments), "header": operation.headers, "query": operation.query}
    errors = (*SIZES, *operation.errors) if operation.public else (*SIZES, *TOKEN, *operation.errors)
    described: dict[str, Any] = {
        "operationId": rule.endpoint.rpartition(".")[2],
        "summary": " ".join(summary.split()),
        "tags": [rule.endpoint.partition(".")[0]],
        "parameters": [_parameter(name, place) for place, found in names.items() for name in found],
        "responses": {str(status): _response(status, content, operation) for status, content in operation.answers.items()}
        | _errors(errors),
        "security": [] if operation.public else [{"token": []}],
    }
    if rest:
        described["description"] = " ".join(rest.split())
    if operation.takes_body:
        schema: dict[str, Any] = _ref("PredictionRequest")
        if "name" not in rule.arguments:
            # Where the address names no model, the body must.
            schema = {"allOf": [schema, {"type": "object", "required": ["version"]}]}
        content = {"application/json": {"schema": schema, "example": EXAMPLES["PredictionRequest"]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _parameter(name: str, place: str) -> dict[str, Any]:
    schema, meaning, example = PARAMETERS[name]
    described = {"name": name, "in": place, "required": place == "path", "description": meaning, "schema": schema}
    return described if example is None else described | {"example": example}


def _response(status: int, content: str | None, operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"description": STATUS_TEXTS[status]}
    if operation.sends or operation.may_send:
        described["headers"] = _headers({*operation.sends, *operation.may_send}, required=operation.sends)
    if content is None:
        return described
    if content == "text/event-stream":
        described["content"] = {content: {"schema": EVENT_SCHEMA}}
    elif "/" in content:
        schema: dict[str, Any] = {"type": "string"}
        described["content"] = {content: {"schema": schema if content.startswith("text/") else schema | {"format": "binary"}}}
    elif content == "{}":
        described["content"] = {"application/json": {"schema": {"type": "object"}}}
    elif content.startswith("["):
        name = content.strip("[]")
        schema = {"type": "array", "items": _ref(name)}
        described["content"] = {"application/json": {"schema": schema, "example": [EXAMPLES[name]]}}
    else:
        described["content"] = {"application/json": {"schema": _ref(content), "example": EXAMPLES[content]}}
    return described


def _errors(failures: Iterable[Failure]) -> dict[str, Any]:
    """Describe errors, by status, with the bodies and headers that the API itself writes for them."""
    answers: dict[int, list[Response]] = {}
    for failure in failures:
        answer = problem_response(failure)
        answers.setdefault(answer.status_code, []).append(answer)
    described: dict[str, Any] = {}
    for status, same in sorted(answers.items()):
        bodies = [json.loads(answer.data) for answer in same]
        content = {"schema": _ref("Problem"), "examples": {body["code"]: {"value": body} for body in bodies}}
        described[str(status)] = {"description": bodies[0]["title"], "content": {MEDIA_TYPE: content}}
        sent = [set(answer.headers.keys()) & set(ANSWER_HEADERS) for answer in same]
        if set.union(*sent):
            described[str(status)]["headers"] = _headers(set.union(*sent), required=set.intersection(*sent))
    return described


def _headers(names: Iterable[str], required: Collection[str] = ()) -> dict[str, Any]:
    described = {}
    for name in sorted(names):
        schema, meaning = ANSWER_HEADERS[name]
        described[name] = {"description": meaning, "required": name in required, "schema": schema}
    return described


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


@cache
def _schemas() -> dict[str, Any]:
    schemas = schemas_of(TYPES.values())
    for name, example in EXAMPLES.items():
        schemas[name]["example"] = example
    return schemas
