"""Dead letters, for operators: webhook messages that were given up, and predictions whose workers died over them."""

from __future__ import annotations

import logging

from flask import Blueprint, Response, g

from api.context import authenticate, base_url, context
from api.deliveries import describe
from api.resources import DeadLetters
from api.responses import json_response
from api.tokens import Scope
from shared.errors import StoreUnavailable
from shared.jobs import Lane
from shared.wire import prediction

log = logging.getLogger(__name__)

blueprint = Blueprint("dead_letters", __name__)


@blueprint.before_request
def authenticate_operator() -> None:
    """Let operators in only. Raises Unauthenticated and Forbidden."""
    authenticate()
    g.token.require(Scope.ADMIN)


@blueprint.get("")
def list_dead_letters() -> Response:
    """List what was given up, the longest dead first: at most 100 of each kind, and how many there are."""
    parts = context()
    delivery_count, deliveries = parts.outbox.dead()
    prediction_count, predictions = parts.store.dead()
    body: DeadLetters = {
        "delivery_count": delivery_count,
        "deliveries": [describe(delivery) for delivery in deliveries],
        "prediction_count": prediction_count,
        "predictions": predictions,
    }
    return json_response(body)


@blueprint.post("/deliveries/redeliver")
def redeliver_dead() -> Response:
    """Send the webhook messages again that were given up, the longest dead first, at most 1000 in one go."""
    return json_response({"redelivered": context().outbox.redeliver_dead()})


@blueprint.post("/predictions/<prediction_id>/requeue")
def requeue_prediction(prediction_id: str) -> Response:
    """Draw a prediction after all whose workers died over it. It waits before all others, without its deadline."""
    parts = context()
    parts.store.requeue(prediction_id)
    job, outlook = parts.store.view(prediction_id)
    try:
        parts.enqueue(prediction_id, model=job.spec.model, lane=Lane.RECOVERY)
    except StoreUnavailable:
        # It waits on record; the sweep announces it when the broker is back.
        log.warning("job %s is queued again, but its message could not be sent", prediction_id)
    return json_response(prediction(job, base_url=base_url(), outlook=outlook))
