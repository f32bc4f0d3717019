"""Two questions of an orchestrator: does this process live, and can the whole take an order now?"""

from __future__ import annotations

from flask import Blueprint, Response

from api.context import context
from api.resources import Health
from api.responses import json_response

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say that the process serves requests. Nothing else is asked."""
    health: Health = {"status": "ok"}
    return json_response(health)


@blueprint.get("/readyz")
def readyz() -> Response:
    """Say whether Redis and storage answer, and how many live workers each model has; 503 when an order would get stuck."""
    found = context().probe.readiness()
    return json_response(found, 200 if found["ready"] else 503)
