"""A job as callers see it: Replicate's prediction object, with our own fields beside theirs, and how it is written as JSON.

The API answers with it and the courier sends it, so a webhook's body is what GET would have said at that moment. Field
rules that official clients insist on: `error` and `logs` are strings, `urls` holds strings only, times are ISO 8601.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, NotRequired
from urllib.parse import quote

from typing_extensions import TypedDict

from shared.jobs import Event, Job, JobSpec, Lane, Status
from shared.outlook import Outlook

WireStatus = Literal["starting", "processing", "succeeded", "failed", "canceled"]

WIRE_STATUS: dict[Status, WireStatus] = {
    Status.QUEUED: "starting",
    Status.RUNNING: "processing",
    Status.SUCCEEDED: "succeeded",
    Status.FAILED: "failed",
    Status.CANCELED: "canceled",
}
"""Replicate's word for each status. Its sixth, `aborted`, is never used: the official clients cannot read it."""


Priority = Literal["high", "normal", "low"]

PRIORITIES: dict[Lane, Priority] = {Lane.HIGH: "high", Lane.NORMAL: "normal", Lane.LOW: "low"}
"""What callers name a lane; the recovery lane is nobody's to ask for."""


class Urls(TypedDict):
    """Absolute addresses that belong to a prediction. `stream` is left out once there is nothing left to stream, and
    `preview` where none was ordered or the prediction has ended.
    """

    get: str
    cancel: str
    web: str
    stream: NotRequired[str]
    preview: NotRequired[str]


class Metrics(TypedDict, total=False):
    """Seconds: the pipeline's own time (0 when a stored picture was the answer), and from creation to the end.

    Of a picture: how many were drawn to choose from, how much it has the texture of a tile (0 to 1), and how much its edges
    show where it is laid beside itself (1: not at all; seamless orders only).
    """

    predict_time: float
    total_time: float
    candidates: int
    tile_score: float
    seam_score: float


class Progress(TypedDict):
    """Denoising steps done and to do; `fraction` is from 0 to 1."""

    step: int
    steps: int
    fraction: float


class AskedFor(TypedDict, total=False):
    """What is told of an order only where it was said: the deployment it went to, its webhook and the events of that."""

    deployment: str
    webhook: str
    webhook_events_filter: list[Event]


class Prediction(AskedFor):
    """The prediction object. The first block is Replicate's; the second is ours, and official clients pass over it."""

    id: str
    model: str
    version: str
    status: WireStatus
    input: dict[str, Any]
    output: str | list[str] | None
    error: str | None
    logs: str
    metrics: Metrics
    created_at: str
    started_at: str | None
    completed_at: str | None
    deadline: str | None
    data_removed: bool
    source: Literal["api"]
    urls: Urls

    tenant: str
    error_code: str | None
    seed: int
    warnings: list[str]
    priority: Priority
    queue_position: int | None
    queue_note: str | None
    eta_s: float | None
    expires_at: str | None
    reused_from: str | None
    progress: Progress
    attempts: int
    composition: list[dict[str, Any]] | None
    color_error: float | None
    provenance: dict[str, Any] | None
    thumbnails: list[str]


def prediction(job: Job, *, base_url: str, outlook: Outlook | None = None) -> Prediction:
    """Render a job. `base_url` starts every address, without a slash at its end; without `outlook` nothing is foretold."""
    spec, result = job.spec, job.result
    outlook = outlook or Outlook()
    return {
        "id": job.id,
        "model": spec.model,
        "version": spec.version,
        "status": WIRE_STATUS[job.status],
        "input": spec.input,
        "output": _output(job, base_url),
        "error": job.error.detail if job.error else None,
        "logs": job.logs,
        "metrics": _metrics(job),
        "created_at": iso_time(job.created_ms),
        "started_at": _optional_time(job.started_ms),
        "completed_at": _optional_time(job.completed_ms),
        "deadline": _optional_time(job.deadline_ms),
        "data_removed": job.data_removed,
        "source": "api",
        "urls": _urls(job, base_url),
        **_asked_for(spec),
        "tenant": spec.tenant,
        "error_code": job.error.code if job.error else None,
        "seed": spec.render.seed,
        "warnings": spec.warnings,
        "priority": PRIORITIES[spec.lane],
        "queue_position": outlook.queue_position,
        "queue_note": outlook.queue_note,
        "eta_s": outlook.eta_s,
        "expires_at": _optional_time(job.expires_ms),
        "reused_from": job.reused_from,
        "progress": _progress(job),
        "attempts": job.fence,
        "composition": result.composition if result else None,
        "color_error": result.color_error if result else None,
        "provenance": result.provenance if result else None,
        "thumbnails": [file_url(base_url, spec.file_token, file.filename) for file in result.thumbnails] if result else [],
    }


def iso_time(ms: int) -> str:
    """Write milliseconds since 1970 as ISO 8601 in UTC, with milliseconds and Z."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _optional_time(ms: int | None) -> str | None:
    return None if ms is None else iso_time(ms)


def stream_url(base_url: str, job_id: str, token: str) -> str:
    """Return the address that a prediction's events are streamed at."""
    return f"{base_url}/v1/streams/{quote(job_id)}/{token}"


def preview_url(base_url: str, job_id: str, token: str) -> str:
    """Return the address that rough pictures of a prediction are shown at while it is drawn."""
    return f"{base_url}/v1/previews/{quote(job_id)}/{token}"


def file_url(base_url: str, token: str, filename: str) -> str:
    """Return the address that a picture is served at for as long as it is kept."""
    return f"{base_url}/v1/files/{token}/{quote(filename)}"


def compact_json(body: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """Serialise byte for byte as JavaScript's `JSON.stringify` would, in UTF-8.

    Receivers that parse a webhook and write it again before they check its signature then see the bytes that were signed:
    no spaces, text unescaped, no `7.0` for 7.

    Raises:
        ValueError: a number is not finite.
    """
    # A lone surrogate has no UTF-8 form; both worlds write it as an escape.
    return _encoded(body).encode("utf-8", "backslashreplace")


def _encoded(value: Any) -> str:
    match value:
        case float():
            return _number(value)
        case Mapping():
            return "{" + ",".join(f"{_encoded(str(key))}:{_encoded(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_encoded, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """Write a float by ECMAScript's Number::toString: decimal from 1e-6 up to 1e21, an exponent outside."""
    if value != value or abs(value) == float("inf"):
        raise ValueError(f"{value} cannot be written as JSON")
    if value == 0:
        return "0"
    text = repr(value)
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(text), "f").removesuffix(".0")
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"


def _urls(job: Job, base_url: str) -> Urls:
    address = f"{base_url}/v1/predictions/{quote(job.id)}"
    urls: Urls = {"get": address, "cancel": f"{address}/cancel", "web": address}
    if job.spec.stream_token and not job.data_removed:
        urls["stream"] = stream_url(base_url, job.id, job.spec.stream_token)
    if job.spec.wants_preview and not job.status.is_terminal:
        urls["preview"] = preview_url(base_url, job.id, job.spec.stream_token)
    return urls


def _asked_for(spec: JobSpec) -> AskedFor:
    asked: AskedFor = {}
    if spec.deployment:
        asked["deployment"] = spec.deployment
    if spec.webhook:
        asked["webhook"] = spec.webhook
        asked["webhook_events_filter"] = spec.webhook_events
    return asked


def _output(job: Job, base_url: str) -> str | list[str] | None:
    if job.result is None or not job.result.outputs:
        return None
    addresses = [file_url(base_url, job.spec.file_token, output.filename) for output in job.result.outputs]
    return addresses[0] if len(addresses) == 1 else addresses


def _metrics(job: Job) -> Metrics:
    metrics: Metrics = {}
    if job.result is not None:
        metrics["predict_time"] = round(job.result.predict_time_s, 3)
        if job.spec.render.num_candidates > 1:
            metrics["candidates"] = job.result.candidates
        if job.result.tile_score is not None:
            metrics["tile_score"] = job.result.tile_score
        if job.result.seam_score is not None:
            metrics["seam_score"] = job.result.seam_score
    if job.completed_ms is not None:
        metrics["total_time"] = (job.completed_ms - job.created_ms) / 1000
    return metrics


def _progress(job: Job) -> Progress:
    steps = job.spec.render.total_steps
    step = steps if job.status is Status.SUCCEEDED else min(job.step, steps)
    return {"step": step, "steps": steps, "fraction": round(step / steps, 4)}
