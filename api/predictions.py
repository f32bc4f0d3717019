"""Predictions: create, read, list, cancel, delete. Mounted under every address that some official client builds for them."""

from __future__ import annotations

from flask import Blueprint, Response, g, request

from api.context import authenticate, base_url, context
from api.orders import place_order
from api.pages import predictions_page
from api.params import check_job_id
from api.responses import json_response
from api.tokens import NAME, Scope
from shared.errors import InputInvalid, NotFound
from shared.jobs import Job
from shared.outlook import Outlook
from shared.removal import remove_data
from shared.wire import prediction

blueprint = Blueprint("predictions", __name__)
blueprint.before_request(authenticate)


@blueprint.post("")
def create_prediction() -> Response:
    """Order a picture from the model version that the body names."""
    return place_order()


@blueprint.put("/<prediction_id>")
def put_prediction(prediction_id: str) -> Response:
    """Order a picture under an id of your own; sent again, it answers with the same prediction."""
    return place_order(job_id=check_job_id(prediction_id))


@blueprint.get("")
def list_predictions() -> Response:
    """List your predictions, newest first; an operator's token lists those of every tenant, or of the one named."""
    return json_response(predictions_page(context().store, _listed_tenant(), request.args, base_url=base_url()))


@blueprint.get("/<prediction_id>")
def get_prediction(prediction_id: str) -> Response:
    """Read a prediction."""
    job, outlook = _own_job(prediction_id)
    return json_response(prediction(job, base_url=base_url(), outlook=outlook))


@blueprint.post("/<prediction_id>/cancel")
def cancel_prediction(prediction_id: str) -> Response:
    """Call a prediction off. One that is being drawn reads as canceled when its worker has let go."""
    _own_job(prediction_id)
    context().store.cancel(prediction_id)
    job, outlook = _own_job(prediction_id)
    return json_response(prediction(job, base_url=base_url(), outlook=outlook))


@blueprint.delete("/<prediction_id>")
def delete_prediction(prediction_id: str) -> Response:
    """Remove a prediction's picture, input and logs; one that has not ended is called off first, and answered with 202."""
    parts = context()
    job, _ = _own_job(prediction_id)
    if not job.status.is_terminal:
        parts.store.cancel(prediction_id, unwanted=True)
        job = parts.store.get(prediction_id)
    if not job.data_removed:
        remove_data(job, parts.store, parts.storage)
    job, outlook = _own_job(prediction_id)
    return json_response(prediction(job, base_url=base_url(), outlook=outlook), 200 if job.data_removed else 202)


def _listed_tenant() -> str | None:
    """Return whose predictions are listed; None: everybody's.

    Raises:
        InputInvalid: a tenant is named that cannot be one.
        Forbidden: it is not the caller's, who is no operator.
    """
    named = request.args.get("tenant")
    if named is None:
        return None if g.token.may(Scope.ADMIN) else g.token.tenant
    if not NAME.fullmatch(named):
        raise InputInvalid("a tenant's name is 1 to 64 letters, digits, . _ and -", field="tenant")
    if not g.token.owns(named):
        g.token.require(Scope.ADMIN)
    return named


def _own_job(prediction_id: str) -> tuple[Job, Outlook]:
    """Return a job of the caller's and what to expect of it. Raises NotFound for one of somebody else's as for none."""
    job, outlook = context().store.view(prediction_id)
    if not g.token.owns(job.spec.tenant):
        raise NotFound(f"no prediction {prediction_id!r}", field="prediction_id")
    return job, outlook
