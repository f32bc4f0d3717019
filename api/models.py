"""What callers ask about the installation: models, versions, deployments, hardware, their account, the webhook secret."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, Response, g, request

from api.context import authenticate, base_url, context
from api.orders import place_order
from api.resources import Account, Caller, Deployment, Model, Version, WebhookSecret
from api.responses import json_response, page
from api.schemas import model_schema
from api.tokens import LANES, Scope, Token
from shared.errors import ModelUnknown, NotFound
from shared.manifest import Manifest
from shared.webhooks import secret_of

blueprint = Blueprint("models", __name__)
blueprint.before_request(authenticate)

COG_VERSION = "0.16.2"
"""The Cog release whose description of inputs and outputs `openapi_schema` follows; clients insist on a string here."""


@blueprint.get("/models")
def list_models() -> Response:
    """List the models of this installation."""
    return json_response(page(_models(context().catalog.models)))


@blueprint.route("/models", methods=["QUERY"])
def search_models() -> Response:
    """List the models whose name or description holds every word of the request's text."""
    # The official JavaScript client sends the text as a JSON string, with its quotation marks.
    words = request.get_data(as_text=True).lower().strip('"').split()
    found = [m for m in context().catalog.models if all(word in f"{m.slug} {m.description}".lower() for word in words)]
    return json_response(page(_models(found)))


@blueprint.get("/models/<owner>/<name>")
def get_model(owner: str, name: str) -> Response:
    """Read about a model."""
    return json_response(_models([context().catalog.by_slug(f"{owner}/{name}")])[0])


@blueprint.post("/models/<owner>/<name>/predictions")
def create_model_prediction(owner: str, name: str) -> Response:
    """Order a picture from a model's only version."""
    return place_order(context().catalog.by_slug(f"{owner}/{name}"))


@blueprint.get("/models/<owner>/<name>/versions")
def list_versions(owner: str, name: str) -> Response:
    """List a model's versions: there is one."""
    manifest = context().catalog.by_slug(f"{owner}/{name}")
    return json_response(page([_version(manifest, manifest.version)]))


@blueprint.get("/models/<owner>/<name>/versions/<version>")
def get_version(owner: str, name: str, version: str) -> Response:
    """Read about a version. An id that the operator lets another model stand in for is found too."""
    return json_response(_version(context().catalog.by_version(f"{owner}/{name}:{version}"), version))


@blueprint.get("/deployments")
def list_deployments() -> Response:
    """List deployments: every model is one."""
    return json_response(page(_deployments(context().catalog.models)))


@blueprint.get("/deployments/<owner>/<name>")
def get_deployment(owner: str, name: str) -> Response:
    """Read about a deployment."""
    return json_response(_deployments([_deployed(owner, name)])[0])


@blueprint.post("/deployments/<owner>/<name>/predictions")
def create_deployment_prediction(owner: str, name: str) -> Response:
    """Order a picture from a deployment, which is the model of the same name."""
    return place_order(_deployed(owner, name), deployment=f"{owner}/{name}")


@blueprint.get("/hardware")
def list_hardware() -> Response:
    """List the devices that live workers draw on."""
    devices = sorted({worker.device for worker in context().workers.alive()})
    return json_response([{"sku": device, "name": device} for device in devices])


@blueprint.get("/account")
def get_account() -> Response:
    """Say whose token this is, and what it may do."""
    token: Token = g.token
    caller: Caller = {
        "type": "organization",
        "username": g.tenant,
        "name": g.tenant,
        "token": {
            "name": token.name,
            "scopes": sorted(token.scopes),
            "lanes": [lane for lane in LANES if lane in token.lanes],
            "max_waiting_jobs": token.max_waiting_jobs,
            "creates_per_minute": token.creates_per_minute,
            "creates_remaining": context().limits.remaining(token),
            "max_candidates": token.max_candidates,
        },
    }
    return json_response(caller)


@blueprint.get("/webhooks/default/secret")
def get_webhook_secret() -> Response:
    """Read the secret that your webhooks are signed with; a token that may only read is refused, for it could forge them."""
    g.token.require(Scope.CREATE)
    secret = context().settings.webhook_secret
    if secret is None:
        raise NotFound("this server sends no webhooks: its operator has set no signing secret")
    key: WebhookSecret = {"key": secret_of(secret.get_secret_value(), g.tenant)}
    return json_response(key)


def _models(manifests: Sequence[Manifest]) -> list[Model]:
    runs = context().store.run_counts()
    return [
        {
            "url": f"{base_url()}/v1/models/{manifest.slug}",
            "owner": manifest.owner,
            "name": manifest.name,
            "description": manifest.description,
            "visibility": manifest.visibility,
            "run_count": runs.get(manifest.slug, 0),
            "default_example": None,
            "latest_version": _version(manifest, manifest.version),
        }
        for manifest in manifests
    ]


def _version(manifest: Manifest, version: str) -> Version:
    return {
        "id": version,
        "created_at": manifest.created_at,
        "cog_version": COG_VERSION,
        "openapi_schema": model_schema(manifest),
    }


def _deployed(owner: str, name: str) -> Manifest:
    try:
        return context().catalog.by_slug(f"{owner}/{name}")
    except ModelUnknown as error:
        raise NotFound(f"no deployment {owner}/{name}: deployments are called as their models", field="name") from error


def _deployments(manifests: Sequence[Manifest]) -> list[Deployment]:
    live = context().workers.alive()
    return [
        _deployment(manifest, [worker.device for worker in live if worker.model == manifest.slug]) for manifest in manifests
    ]


def _deployment(manifest: Manifest, devices: list[str]) -> Deployment:
    return {
        "owner": manifest.owner,
        "name": manifest.name,
        "current_release": {
            "number": 1,
            "model": manifest.slug,
            "version": manifest.version,
            "created_at": manifest.created_at,
            "created_by": _account(manifest.owner),
            "configuration": {
                "hardware": ", ".join(sorted(set(devices))) or "none",
                "min_instances": len(devices),
                "max_instances": len(devices),
            },
        },
    }


def _account(name: str) -> Account:
    return {"type": "organization", "username": name, "name": name}
