"""Deliveries: the webhook messages of a prediction, how each one fared, and sending one again."""

from __future__ import annotations

import re

from flask import Blueprint, Response, g

from api.context import authenticate, context
from api.resources import DeliveryResource, Try
from api.responses import json_response, page
from shared.errors import NotFound
from shared.outbox import Delivery
from shared.wire import iso_time

NUMBER = re.compile(r"[0-9]{1,9}")

blueprint = Blueprint("deliveries", __name__)
blueprint.before_request(authenticate)


@blueprint.get("/<prediction_id>/deliveries")
def list_deliveries(prediction_id: str) -> Response:
    """List the webhook messages of a prediction, in the order of their events."""
    _check_owner(prediction_id)
    return json_response(page([describe(delivery) for delivery in context().outbox.of_job(prediction_id)]))


@blueprint.post("/<prediction_id>/deliveries/<delivery_number>/redeliver")
def redeliver(prediction_id: str, delivery_number: str) -> Response:
    """Send a webhook message again: the same body, the same webhook-id, and all its tries before it.

    One that is on its way is left to that.
    """
    _check_owner(prediction_id)
    delivery_id, outbox = f"{prediction_id}.{delivery_number}", context().outbox
    if not NUMBER.fullmatch(delivery_number):
        raise NotFound(f"no delivery {delivery_id!r}", field="delivery_number")
    outbox.redeliver(delivery_id)
    delivery = outbox.get(delivery_id)
    if delivery is None:
        raise NotFound(f"no delivery {delivery_id!r}", field="delivery_number")
    return json_response(describe(delivery))


def describe(delivery: Delivery) -> DeliveryResource:
    """Return what callers see of a delivery."""
    return {
        "id": delivery.message_id,
        "prediction": delivery.job_id,
        "number": delivery.seq,
        "event": delivery.event,
        "url": delivery.url,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "created_at": iso_time(delivery.created_ms),
        "tries": [Try(tried_at=iso_time(at_ms), note=note) for at_ms, note in delivery.tries],
    }


def _check_owner(prediction_id: str) -> None:
    if not g.token.owns(context().store.get(prediction_id).spec.tenant):
        raise NotFound(f"no prediction {prediction_id!r}", field="prediction_id")
