"""Predictions: create, read, list, cancel, delete. Mounted under every address that some official client builds for them."""

from __future__ import annotations

from flask import Blueprint, Response, g, request

from api.context import authenticate, base_url, context
from api.orders import place_order
from api.pages import predictions_page
from api.params import check_job_id
from api.responses import json_response
from shared.errors import NotFound
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
    """List your predictions, newest first."""
    return json_response(predictions_page(context().store, g.tenant, request.args, base_url=base_url()))


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


def _own_job(prediction_id: str) -> tuple[Job, Outlook]:
    """Return a job of the caller's and what to expect of it. Raises NotFound for one of somebody else's as for none."""
    job, outlook = context().store.view(prediction_id)
    if not g.token.owns(job.spec.tenant):
        raise NotFound(f"no prediction {prediction_id!r}")
    return job, outlook
