"""One order and all that could be answered to it: the examples in the API's description, of the types that it describes."""

from __future__ import annotations

from typing import Any

from werkzeug.exceptions import (
    HTTPException,
    RequestedRangeNotSatisfiable,
    RequestEntityTooLarge,
    RequestHeaderFieldsTooLarge,
    RequestURITooLarge,
    UnsupportedMediaType,
)
from werkzeug.exceptions import NotImplemented as NotOffered

from api.problems import BodyInvalid, VersionRefused
from api.resources import (
    Account,
    Caller,
    DeadLetters,
    DeliveryResource,
    Deployment,
    Hardware,
    Health,
    Model,
    Overview,
    PaletteColor,
    Readiness,
    Version,
    WebhookSecret,
)
from api.responses import page
from api.schemas import OUTPUT_SCHEMA
from api.tokens import LANES, Scope
from shared import errors
from shared.filenames import thumbnail_name
from shared.jobs import Event, Job, JobSpec, Lane, Output, RenderSpec, Result, Status
from shared.outbox import DeliveryState
from shared.wire import Prediction, prediction

BASE_URL = "https://tiles.example.com"
MODEL = "granule/rubber-tile-mini"
MADE_AT, MADE_MS = "2026-01-31T12:00:00.000Z", 1_769_860_800_000
VERSION_ID = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
INPUT: dict[str, Any] = {"prompt": "50% red, 30% black, 20% pearl", "seed": 42}
REQUEST: dict[str, Any] = {"version": MODEL, "input": INPUT}
FILENAME = "2026-01-31_50red-30black-20pearl_seed42.png"


def _prediction() -> Prediction:
    job_id = "4fzyqxkdtvnq3m6wbj2hcu5rea"
    mix = [("red", 50.0), ("black", 30.0), ("pearl", 20.0)]
    render = RenderSpec("", None, 42, 20, 5.0, 1024, 1024, "png", 95)
    spec = JobSpec(
        id=job_id, tenant="shop", model=MODEL, version=VERSION_ID, lane=Lane.NORMAL, input=INPUT, render=render, mix=mix,
        warnings=[], base_url=BASE_URL, file_token="dGhlIHVuZ3Vlc3NhYmxlIHBhcnQ", filename=FILENAME,
    )  # fmt: skip
    result = Result(
        outputs=[Output(f"outputs/{job_id}/1/0.png", FILENAME, "image/png", 1_803_022, VERSION_ID)],
        predict_time_s=6.21,
        provenance={"model": MODEL, "device": "cpu (AVX2)", "dtype": "float32", "batch_size": 1},
        composition=[{"color": name, "ordered": share, "measured": share} for name, share in mix],
        color_error=0.0,
        thumbnails=[Output(f"outputs/{job_id}/1/0.thumb.webp", thumbnail_name(FILENAME), "image/webp", 44_702, VERSION_ID)],
    )
    job = Job(
        spec, Status.SUCCEEDED, MADE_MS, 1, fence=1, logs="100%|##########| 20/20 [00:06<00:00,  3.22it/s]\n",
        started_ms=MADE_MS + 40, completed_ms=MADE_MS + 6_410, expires_ms=MADE_MS + 2_592_006_410, result=result,
    )  # fmt: skip
    return prediction(job, base_url=BASE_URL)


ACCOUNT: Account = {"type": "organization", "username": "granule", "name": "granule"}
CALLER: Caller = {
    "type": "organization",
    "username": "shop",
    "name": "shop",
    "token": {
        "name": "shop",
        "scopes": [Scope.CREATE, Scope.READ],
        "lanes": list(LANES),
        "max_waiting_jobs": 500,
        "creates_per_minute": 60,
        "creates_remaining": 59,
        "max_candidates": 4,
    },
}
VERSION: Version = {
    "id": VERSION_ID,
    "created_at": MADE_AT,
    "cog_version": "0.16.2",
    "openapi_schema": {"components": {"schemas": {"Output": OUTPUT_SCHEMA}}},
}
MODEL_RESOURCE: Model = {
    "url": f"{BASE_URL}/v1/models/{MODEL}",
    "owner": "granule",
    "name": "rubber-tile-mini",
    "description": "Draws rubber tiles.",
    "visibility": "public",
    "run_count": 17,
    "default_example": None,
    "latest_version": VERSION,
}
DEPLOYMENT: Deployment = {
    "owner": "granule",
    "name": "rubber-tile-mini",
    "current_release": {
        "number": 1,
        "model": MODEL,
        "version": VERSION_ID,
        "created_at": MADE_AT,
        "created_by": ACCOUNT,
        "configuration": {"hardware": "cpu", "min_instances": 1, "max_instances": 1},
    },
}
HARDWARE: Hardware = {"sku": "cpu", "name": "cpu"}
SECRET: WebhookSecret = {"key": "whsec_dGhlIHNlY3JldCB0aGF0IHNpZ25zIHlvdXIgd2ViaG9va3M="}
HEALTH: Health = {"status": "ok"}
READINESS: Readiness = {"ready": True, "redis": "ok", "storage": "ok", "workers": {MODEL: 1}}
PREDICTION = _prediction()
DELIVERY: DeliveryResource = {
    "id": f"msg_{PREDICTION['id']}.1",
    "prediction": PREDICTION["id"],
    "number": 1,
    "event": Event.COMPLETED,
    "url": "https://shop.example.com/tiles",
    "state": DeliveryState.PENDING,
    "attempts": 1,
    "created_at": MADE_AT,
    "tries": [{"tried_at": MADE_AT, "note": "HTTP 502"}],
}
DEAD_LETTERS: DeadLetters = {
    "delivery_count": 1,
    "deliveries": [{**DELIVERY, "state": DeliveryState.DEAD}],
    "prediction_count": 1,
    "predictions": [PREDICTION["id"]],
}

PALETTE_COLOR: PaletteColor = {
    "code": "DKGREEN",
    "name": "dark green",
    "name_ru": "Темно-зеленый",
    "srgb": "#47866D",
    "spellings": ["darkgreen", "dkgreen", "темнозеленый"],
    "near": ["forestgreen", "pine", "bottlegreen"],
}
OVERVIEW: Overview = {
    "queues": [{"model": MODEL, "lane": Lane.NORMAL, "waiting": 0, "oldest_s": None, "next": []}],
    "running": [],
    "workers": [
        {
            "name": "host-1-a1b2c3",
            "model": MODEL,
            "device": "NVIDIA H200",
            "state": "idle",
            "prediction": None,
            "silence_s": 1.4,
            "duty": 0.97,
            "memory": {"free_bytes": 131_000_000_000, "total_bytes": 150_000_000_000, "peak_bytes": 12_400_000_000},
        }
    ],
    "models": [],
    "per_minute": [0] * 60,
    "totals": [{"p50_s": 2.1, "p95_s": 3.4}] * 12,
    "failures": [{"code": "worker_lost", "count": 1}],
    "deliveries_pending": 0,
    "deliveries_dead": 1,
    "predictions_dead": 0,
}

EXAMPLES: dict[str, Any] = {
    "Caller": CALLER,
    "DeadLetters": DEAD_LETTERS,
    "DeliveryPage": page([DELIVERY]),
    "DeliveryResource": DELIVERY,
    "Deployment": DEPLOYMENT,
    "DeploymentPage": page([DEPLOYMENT]),
    "Hardware": HARDWARE,
    "Health": HEALTH,
    "Model": MODEL_RESOURCE,
    "ModelPage": page([MODEL_RESOURCE]),
    "Overview": OVERVIEW,
    "PaletteColor": PALETTE_COLOR,
    "Prediction": PREDICTION,
    "PredictionPage": page([PREDICTION], next_url=f"{BASE_URL}/v1/predictions?cursor=PDQy"),
    "PredictionRequest": REQUEST,
    "Readiness": READINESS,
    "Redelivered": {"redelivered": 17},
    "Version": VERSION,
    "VersionPage": page([VERSION]),
    "WebhookSecret": SECRET,
    "WorkerState": {**OVERVIEW["workers"][0], "state": "drained"},
}
"""One instance of each type that a request or an answer has, by the name of its class."""

Failure = errors.GranuleError | HTTPException

# Errors as they leave the API. Which of them an operation answers with stands in api/operations.py.
NO_TOKEN = errors.Unauthenticated("send a token: Authorization: Bearer <token>", field="Authorization")
FORBIDDEN = errors.Forbidden("this needs a token with the scope create; 'viewer' has read", field="Authorization")
NO_PREDICTION = errors.NotFound("no prediction '4fzyqxkdtvnq3m6wbj2hcu5rea'", field="prediction_id")
NO_DELIVERY = errors.NotFound("no delivery '4fzyqxkdtvnq3m6wbj2hcu5rea.7'", field="delivery_number")
NOT_DEAD = errors.InputInvalid("only a prediction whose workers died over it can be queued again", field="prediction_id")
NO_FILE = errors.NotFound("no such file", field="token")
NO_STREAM = errors.NotFound("no such stream", field="token")
NO_WORKER = errors.NotFound("no worker 'host-1-a1b2c3' shows itself", field="worker")
NO_PREVIEW = errors.NotFound("no such preview", field="token")
NO_SECRET = errors.NotFound("this server sends no webhooks: its operator has set no signing secret")
NO_MODEL = errors.ModelUnknown("this server has no model nobody/nothing")
NO_DEPLOYMENT = errors.NotFound("no deployment nobody/nothing: deployments are called as their models", field="name")
REMOVED = errors.Gone("this picture was removed")
NOT_JSON = UnsupportedMediaType("send the body as Content-Type: application/json")
BODY_INVALID = BodyInvalid(
    "input.seed: Input should be a valid integer",
    [{"type": "int_type", "field": "input.seed", "description": "Input should be a valid integer"}],
)
PROMPT_INVALID = errors.PromptInvalid("the shares must sum to 100%", field="input.prompt")
NO_VERSION = VersionRefused("this server has no such version", field="version")
WEBHOOK_REFUSED = errors.WebhookUrlRefused("the address must be https", field="webhook")
KEY_REUSED = errors.IdempotencyConflict("this idempotency key was used before with a different body", field="Idempotency-Key")
CURSOR_INVALID = errors.InputInvalid("cursor is not one that a page of this list gave out", field="cursor")
QUEUE_FULL = errors.QueueFull(f"10000 jobs are waiting for {MODEL}; try again later", retry_after_s=30)
STREAMS_FULL = errors.StreamsFull("too many event streams are open; try again, or poll urls.get", retry_after_s=5)
RATE_LIMITED = errors.RateLimited("'shop' may place 60 orders in a minute; try again later", limit=60, retry_after_s=7)
NO_REDIS = errors.StoreUnavailable("the job store does not answer")
NO_STORAGE = errors.StorageUnavailable("the storage does not answer")
BODY_TOO_LARGE = RequestEntityTooLarge("the body is at most 65536 bytes")
URL_TOO_LONG = RequestURITooLarge("path and query are at most 4000 characters")
HEADERS_TOO_LARGE = RequestHeaderFieldsTooLarge(
    "headers are at most 16384 bytes together; the largest here is Cookie with 17000"
)
NO_SUCH_RANGE = RequestedRangeNotSatisfiable(length=1_803_022)
NO_UPLOADS = NotOffered("this server takes no uploads: a prediction's input is text and numbers")
