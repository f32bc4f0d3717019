"""Two questions of an orchestrator: does this process live, and can the whole take an order now?"""

from __future__ import annotations

from flask import Blueprint, Response

from api.context import context
from api.resources import Health, Readiness
from api.responses import json_response
from shared.errors import StorageUnavailable, StoreUnavailable

blueprint = Blueprint("health", __name__)

PROBE_PREFIX = "readyz/"
"""Nothing is stored under it; listing it is the cheapest question that fails when the bucket is missing."""


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say that the process serves requests. Nothing else is asked."""
    health: Health = {"status": "ok"}
    return json_response(health)


@blueprint.get("/readyz")
def readyz() -> Response:
    """Say whether Redis and storage answer, and how many live workers each model has; 503 when an order would get stuck."""
    parts = context()
    workers = {manifest.slug: 0 for manifest in parts.catalog.models}
    found: Readiness = {"ready": False, "redis": "ok", "storage": "ok", "workers": workers}
    try:
        for worker in parts.workers.alive():
            workers[worker.model] = workers.get(worker.model, 0) + 1
    except StoreUnavailable as error:
        found["redis"] = error.detail
    try:
        parts.storage.keys(PROBE_PREFIX)
    except StorageUnavailable as error:
        found["storage"] = error.detail
    found["ready"] = found["redis"] == found["storage"] == "ok" and any(workers.values())
    return json_response(found, 200 if found["ready"] else 503)
