"""Rough pictures of a prediction while it is drawn, at `urls.preview`. The address itself is the permission."""

from __future__ import annotations

import hmac

from flask import Blueprint, Response

from api.context import context
from shared.errors import NotFound
from shared.jobs import Job, Status

blueprint = Blueprint("preview", __name__)

HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}


@blueprint.get("/<prediction_id>/<token>")
def get_preview(prediction_id: str, token: str) -> Response:
    """Fetch the latest preview: WebP, 128 px. 204 where there is none yet, or where the prediction is not being drawn."""
    job = _previewed_job(prediction_id, token)
    picture = context().previews.get(job.id) if job.status is Status.RUNNING else None
    if picture is None:
        return Response(status=204, headers=HEADERS)
    return Response(picture, content_type="image/webp", headers=HEADERS)


def _previewed_job(job_id: str, token: str) -> Job:
    try:
        job = context().store.get(job_id)
    except NotFound as error:
        raise NotFound("no such preview", field="token") from error
    # A job whose data was removed has no input any more, and with it no previews.
    if not job.spec.wants_preview or not hmac.compare_digest(job.spec.stream_token.encode(), token.encode()):
        raise NotFound("no such preview", field="token")
    return job
