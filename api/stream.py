"""Events of one prediction as they happen: `text/event-stream` at `urls.stream`.

The address itself is the permission, as with files: JavaScript's official client sends no token to it. The events are
Replicate's four. `logs` has new log lines, `output` a picture's address, `error` a JSON object with `detail`, and `done` is
the last. An event's id says what was sent before it, so that a reader who comes back with it gets the rest and no more.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from flask import Blueprint, Response, request

from api.context import base_url, context
from shared.errors import Gone, GranuleError, NotFound, StreamsFull
from shared.job_store import JobStore
from shared.jobs import Job, Status
from shared.wire import file_url

blueprint = Blueprint("stream", __name__)
log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0
"""The official Python client gives up after 30 s without a byte."""

RETRY_AFTER_S = 5
RECONNECT_MS = 2_000

HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "Access-Control-Allow-Origin": "*",
}
PREFLIGHT = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Cache-Control, Last-Event-ID",
    "Access-Control-Max-Age": "86400",
}

LINE_END = re.compile(r"\r\n|\r|\n")
POSITION = re.compile(r"([0-9]{1,12})-(?:([0-9]{1,3})|done)")


@dataclass(slots=True)
class Position:
    """How far a reader is: bytes of log and outputs that it got, and whether it saw the end."""

    logged_bytes: int = 0
    outputs: int = 0
    done: bool = False

    def __str__(self) -> str:
        return f"{self.logged_bytes}-{'done' if self.done else self.outputs}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read back what `str` wrote; anything else is a reader who has nothing yet."""
        match = POSITION.fullmatch(text)
        return cls(int(match[1]), int(match[2] or 0), match[2] is None) if match else cls()


@blueprint.get("/<prediction_id>/<token>", provide_automatic_options=False)
def stream_prediction(prediction_id: str, token: str) -> Response:
    """Follow a prediction as server-sent events, from `Last-Event-ID` on, until it has ended."""
    parts = context()
    job = _streamed_job(parts.store, prediction_id, token)
    position = Position.parse(request.headers.get("Last-Event-ID", ""))
    if position.done:
        return Response(status=204, headers=HEADERS)  # which tells a browser not to come back
    if request.method == "HEAD":
        return Response(content_type="text/event-stream", headers=HEADERS)
    address = base_url()
    if not parts.streams.acquire(blocking=False):
        raise StreamsFull("too many event streams are open; try again, or poll urls.get", retry_after_s=RETRY_AFTER_S)
    events = _events(job.id, position, parts.store, limit_s=parts.settings.stream_limit_s, base_url=address)
    response = Response(events, content_type="text/event-stream", headers=HEADERS)
    # Not at the end of the generator: one whose reader left before the first byte is never begun.
    response.call_on_close(parts.streams.release)
    return response


@blueprint.route("/<prediction_id>/<token>", methods=["OPTIONS"])
def preflight_stream(prediction_id: str, token: str) -> Response:
    """Tell a browser that a page of any origin may follow a prediction whose address it knows."""
    return Response(status=204, headers=PREFLIGHT)


def _streamed_job(store: JobStore, job_id: str, token: str) -> Job:
    try:
        job = store.get(job_id)
    except NotFound as error:
        raise NotFound("no such stream", field="token") from error
    if not job.spec.stream_token or not hmac.compare_digest(job.spec.stream_token.encode(), token.encode()):
        raise NotFound("no such stream", field="token")
    if job.data_removed:
        raise Gone("this prediction's data was removed")
    return job


def _events(job_id: str, position: Position, store: JobStore, *, limit_s: float, base_url: str) -> Iterator[bytes]:
    """Yield events and, when there are none, comments, until the job has ended or `limit_s` seconds are over."""
    sent_s = time.monotonic()
    # Neither this line nor a comment is closed by an empty one: Replicate's second Python client takes that for an event.
    yield f"retry: {RECONNECT_MS}\n".encode()
    try:
        with closing(store.follow(job_id, limit_s)) as versions:
            for job in versions:
                for event in _news(job, position, base_url):
                    yield event
                    sent_s = time.monotonic()
                if time.monotonic() - sent_s >= HEARTBEAT_S:
                    yield b": still here\n"
                    sent_s = time.monotonic()
    except GranuleError as error:
        # The status line is long gone. Without a `done` the reader knows that this was not the end.
        log.warning("the stream of job %s broke off: %s", job_id, error, extra={"job_id": job_id})


def _news(job: Job, position: Position, base_url: str) -> Iterator[bytes]:
    """Yield what a reader at `position` has not got yet, and move it on."""
    kept = job.logs.encode()
    unsent = min(job.logged_bytes - position.logged_bytes, len(kept))
    if unsent > 0:
        position.logged_bytes = job.logged_bytes
        yield _event("logs", kept[-unsent:].decode(errors="replace"), position)
    if not job.status.is_terminal:
        return
    outputs = job.result.outputs if job.result else []
    while position.outputs < len(outputs):
        position.outputs += 1
        filename = outputs[position.outputs - 1].filename
        yield _event("output", file_url(base_url, job.spec.file_token, filename), position)
    if job.status is Status.FAILED:
        detail = job.error.detail if job.error else "the prediction failed"
        yield _event("error", _compact({"detail": detail}), position)
    reasons = {Status.FAILED: {"reason": "error"}, Status.CANCELED: {"reason": "canceled"}}
    position.done = True
    yield _event("done", _compact(reasons.get(job.status, {})), position)


def _compact(data: dict[str, str]) -> str:
    # Escaped to ASCII: some readers of event streams take U+2028 for the end of a line.
    return json.dumps(data, separators=(",", ":"))


def _event(name: str, data: str, position: Position) -> bytes:
    lines = "".join(f"data: {line}\n" for line in LINE_END.split(data))
    return f"event: {name}\nid: {position}\n{lines}\n".encode()
