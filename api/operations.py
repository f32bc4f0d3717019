"""What a view's code does not say by itself, one line a route: its answers, its errors, its parameters, who may call it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api import examples
from api.examples import Failure
from api.params import IDEMPOTENCY_KEY, JOB_ID
from api.tokens import NAME
from shared.wire import PRIORITIES


@dataclass(frozen=True, slots=True)
class Operation:
    """One route.

    `answers` has for each status a type's name, a media type, or None for no body; `errors` are examples of all that it can
    refuse with; `headers` and `query` name the parameters it reads, `sends` and `may_send` headers of its answers. `public`
    routes need no token.
    """

    answers: dict[int, str | None]
    errors: tuple[Failure, ...] = ()
    headers: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    sends: tuple[str, ...] = ()
    may_send: tuple[str, ...] = ()
    takes_body: bool = False
    public: bool = False


SIZES = (examples.BODY_TOO_LARGE, examples.URL_TOO_LONG, examples.HEADERS_TOO_LARGE)
"""Every route looks at these before anything else."""

TOKEN = (examples.NO_TOKEN, examples.FORBIDDEN)
"""Every route that is not public asks for a token."""

CREATING = (
    examples.NOT_JSON,
    examples.BODY_INVALID,
    examples.PROMPT_INVALID,
    examples.NO_VERSION,
    examples.WEBHOOK_REFUSED,
    examples.KEY_REUSED,
    examples.QUEUE_FULL,
    examples.RATE_LIMITED,
    examples.NO_REDIS,
)
CREATE_HEADERS = ("Prefer", "Idempotency-Key", "Cancel-After", "X-Priority", "Cache-Control")


def _create(*errors: Failure) -> Operation:
    return Operation(
        {201: "Prediction", 200: "Prediction"},
        (*CREATING, *errors),
        headers=CREATE_HEADERS,
        sends=("Location",),
        may_send=("Idempotent-Replayed",),
        takes_body=True,
    )


OF_ONE = (examples.NO_PREDICTION, examples.NO_REDIS)

OPERATIONS: dict[str, Operation] = {
    "predictions.create_prediction": _create(),
    "predictions.put_prediction": _create(),
    "predictions.list_predictions": Operation(
        {200: "PredictionPage"},
        (examples.CURSOR_INVALID, examples.NO_REDIS),
        query=("cursor", "created_after", "created_before", "source", "tenant"),
    ),
    "predictions.get_prediction": Operation({200: "Prediction"}, OF_ONE),
    "predictions.cancel_prediction": Operation({200: "Prediction"}, OF_ONE),
    "predictions.delete_prediction": Operation({200: "Prediction", 202: "Prediction"}, (*OF_ONE, examples.NO_STORAGE)),
    "deliveries.list_deliveries": Operation({200: "DeliveryPage"}, OF_ONE),
    "deliveries.redeliver": Operation({200: "DeliveryResource"}, (examples.NO_DELIVERY, *OF_ONE)),
    "overview.get_overview": Operation({200: "Overview"}, (examples.NO_REDIS,)),
    "colors.list_colors": Operation({200: "[PaletteColor]"}, (examples.NO_MODEL,)),
    "dead_letters.list_dead_letters": Operation({200: "DeadLetters"}, (examples.NO_REDIS,)),
    "dead_letters.redeliver_dead": Operation({200: "Redelivered"}, (examples.NO_REDIS,)),
    "dead_letters.requeue_prediction": Operation({200: "Prediction"}, (*OF_ONE, examples.REMOVED, examples.NOT_DEAD)),
    "models.list_models": Operation({200: "ModelPage"}, (examples.NO_REDIS,)),
    "models.get_model": Operation({200: "Model"}, (examples.NO_MODEL, examples.NO_REDIS)),
    "models.create_model_prediction": _create(examples.NO_MODEL),
    "models.list_versions": Operation({200: "VersionPage"}, (examples.NO_MODEL,)),
    "models.get_version": Operation({200: "Version"}, (examples.NO_MODEL,)),
    "models.list_deployments": Operation({200: "DeploymentPage"}, (examples.NO_REDIS,)),
    "models.get_deployment": Operation({200: "Deployment"}, (examples.NO_DEPLOYMENT, examples.NO_REDIS)),
    "models.create_deployment_prediction": _create(examples.NO_DEPLOYMENT),
    "models.list_hardware": Operation({200: "[Hardware]"}, (examples.NO_REDIS,)),
    "models.get_account": Operation({200: "Caller"}, (examples.NO_REDIS,)),
    "models.get_webhook_secret": Operation({200: "WebhookSecret"}, (examples.NO_SECRET,)),
    "files.get_file": Operation(
        {200: "image/*", 206: "image/*", 302: None, 304: None},
        (examples.NO_FILE, examples.REMOVED, examples.NO_SUCH_RANGE, examples.NO_REDIS, examples.NO_STORAGE),
        headers=("Range", "If-None-Match", "If-Range"),
        sends=("ETag", "Accept-Ranges"),
        may_send=("Content-Range", "Location"),
        public=True,
    ),
    "files.refuse_uploads": Operation({}, (examples.NO_UPLOADS,), public=True),
    "files.refuse_upload": Operation({}, (examples.NO_UPLOADS,), public=True),
    "stream.stream_prediction": Operation(
        {200: "text/event-stream", 204: None},
        (examples.NO_STREAM, examples.REMOVED, examples.STREAMS_FULL, examples.NO_REDIS),
        headers=("Last-Event-ID",),
        public=True,
    ),
    "health.healthz": Operation({200: "Health"}, public=True),
    "health.readyz": Operation({200: "Readiness", 503: "Readiness"}, public=True),
    "openapi.get_openapi": Operation({200: "{}"}, public=True),
    "docs.get_docs": Operation({200: "text/html"}, public=True),
    "docs.get_style": Operation({200: "text/css"}, public=True),
}
UNDESCRIBED = frozenset(
    {"models.search_models", "files.preflight_file", "stream.preflight_stream", "metrics.get_metrics", "metrics.get_jobs"}
    | {"studio.get_studio", "studio.get_ops", "studio.get_asset"}
)
"""QUERY is no method that OpenAPI 3.0 knows; the others are answers to browsers, and pages for people."""

TEXT: dict[str, Any] = {"type": "string"}
MOMENT = {"type": "string", "format": "date-time"}

PARAMETERS: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "prediction_id": ({"type": "string", "pattern": f"^{JOB_ID.pattern}$"}, "The prediction's id.", None),
    "delivery_number": ({"type": "string", "pattern": "^[0-9]{1,9}$"}, "Which of the prediction's messages, from 1.", "1"),
    "owner": (TEXT, "First part of the model's name.", "granule"),
    "name": (TEXT, "Second part of the model's name.", "rubber-tile-mini"),
    "version": (TEXT, "Version id of 64 hexadecimal digits.", examples.VERSION_ID),
    "token": (TEXT, "The unguessable part of the address, as it was handed out.", None),
    "file_id": (TEXT, "The id of an upload, of which there are none.", None),
    "filename": (TEXT, "Name of the file, as it was handed out.", examples.FILENAME),
    "Prefer": (TEXT, "wait, or wait=N: answer when the job has ended, after at most N (1 to 60) seconds.", "wait=30"),
    "Idempotency-Key": (
        {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY.pattern}$"},
        "The same key and body within 24 hours are the same prediction.",
        "order-4711",
    ),
    "Cancel-After": (TEXT, "Call the job off if it has not ended after this time: 90, 30s, 1m30s, 2h30m; at least 5 s.", "90"),
    "X-Priority": ({"type": "string", "enum": list(PRIORITIES.values())}, "The lane to wait in; without it normal.", "normal"),
    "Cache-Control": (TEXT, "no-cache: draw again, even where a stored picture of this very order could answer.", "no-cache"),
    "Range": (TEXT, "One range of bytes.", "bytes=0-1023"),
    "If-None-Match": (TEXT, "The ETag of a copy that the caller has.", None),
    "If-Range": (TEXT, "The ETag of the copy that a Range continues.", None),
    "Last-Event-ID": (TEXT, "The id of the last event that was read; the stream goes on behind it.", None),
    "cursor": (TEXT, "A place in the list, out of next or previous.", None),
    "created_after": (MOMENT, "Only predictions created then or later.", "2026-01-31T12:00:00Z"),
    "created_before": (MOMENT, "Only predictions created before.", "2026-02-28T12:00:00Z"),
    "tenant": (
        {"type": "string", "pattern": f"^{NAME.pattern}$"},
        "Only this tenant's predictions; without it an operator's token lists everybody's, all others their own.",
        "shop",
    ),
    "source": ({"type": "string", "enum": ["api", "web"]}, "Where predictions came from; there are none from web.", "api"),
}
"""Schema, meaning and example of every parameter. All values are text on the wire."""

WHOLE = {"type": "integer", "minimum": 0}

ANSWER_HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "Location": ({"type": "string", "format": "uri"}, "The prediction's address."),
    "Idempotent-Replayed": ({"type": "string", "enum": ["true"]}, "The request was a repeat; nothing was recorded."),
    "ETag": (TEXT, "Changes when the picture does."),
    "Accept-Ranges": (TEXT, "bytes"),
    "Content-Range": (TEXT, "Which bytes of how many these are."),
    "WWW-Authenticate": (TEXT, "Bearer"),
    "Retry-After": (WHOLE, "Seconds to wait before the next try."),
    "x-should-retry": ({"type": "string", "enum": ["true", "false"]}, "Whether the same request may succeed later."),
    "ratelimit-limit": (WHOLE, "Orders that the token may place in a minute."),
    "ratelimit-remaining": (WHOLE, "How many of them are left."),
    "ratelimit-reset": (WHOLE, "Seconds until there are more."),
}
"""Schema and meaning of the headers that answers carry for callers."""
