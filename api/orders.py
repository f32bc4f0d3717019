"""From a checked request to a recorded job: what is ordered, whether it is a repeat, and how long the answer is held."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flask import Response, g, request

from api.context import Context, base_url, context
from api.drawing import render_spec
from api.hold import hold_s
from api.params import (
    PredictionRequest,
    check_body,
    check_cancel_after,
    check_idempotency_key,
    check_priority,
    read_json,
)
from api.problems import VersionRefused
from api.responses import json_response
from api.reuse import end_with_stored, wants_fresh
from api.tracing import begin_order
from shared.errors import IdempotencyConflict, InputInvalid, ModelUnknown, PromptInvalid, StoreUnavailable, WebhookUrlRefused
from shared.filenames import file_name
from shared.job_store import Created
from shared.jobs import DEFAULT_EVENTS, Event, JobSpec, new_id, new_seed
from shared.manifest import Manifest
from shared.outlook import Outlook
from shared.prompts import parse_negative_prompt, parse_prompt
from shared.tracing import span
from shared.webhooks import check_url
from shared.wire import prediction

TOKEN_BYTES = 24

SEEDED_REPEAT_S = 10.0
"""A body with a seed has one right picture, so the same body again within this time is the same order."""

RETRY_COUNT = re.compile(r"[0-9]{1,4}")
RETRY_MAX = 100

log = logging.getLogger(__name__)


def place_order(manifest: Manifest | None = None, *, job_id: str | None = None, deployment: str = "") -> Response:
    """Record the job that the request's body asks for, and answer with its prediction: 201, or 200 for a repeat.

    `manifest` is the model that the address names; without it the body's `version` must. `job_id` is an id the caller chose,
    `deployment` the owner/name that was ordered from.
    """
    started_s, trace = time.monotonic(), begin_order()
    parts = context()
    raw = read_json(request)
    body = check_body(raw)
    if job_id is not None and body.id not in (None, job_id):
        raise InputInvalid("the id in the body differs from the one in the address", field="id")
    manifest = _manifest_for(body, manifest, parts)
    spec = replace(_job_spec(body, raw["input"], manifest, parts, job_id or new_id()), deployment=deployment)
    key = check_idempotency_key(request.headers.get("Idempotency-Key"))
    reuse = parts.settings.reuse_results and _names_seed(body) and not wants_fresh(request.headers)
    created = parts.limits.admit(
        g.token,
        lambda admitted: parts.store.create(
            spec,
            body_hash=_body_hash(raw, manifest),
            queue_max_jobs=parts.settings.queue_max_jobs if admitted else 0,
            tenant_max_jobs=g.token.max_waiting_jobs,
            idempotency_key=key,
            repeat_window_s=0.0 if key or job_id else _repeat_window_s(body),
            retry=None if key or job_id else _retry_count(),
            reuse=reuse and admitted,
            traceparent=trace.traceparent,
        ),
        has_key=key is not None or job_id is not None,
    )
    trace.set({"granule.job_id": created.job_id, "granule.is_repeat": not created.is_new})
    if job_id not in (None, created.job_id):
        raise IdempotencyConflict("this key belongs to a prediction with another id", field="Idempotency-Key")
    return _answer(parts, _start(parts, created) if created.is_new else created, started_s)


def _manifest_for(body: PredictionRequest, named: Manifest | None, parts: Context) -> Manifest:
    if body.version is None:
        if named is None:
            raise InputInvalid("version is required here: a version id, owner/name:id or owner/name", field="version")
        return named
    try:
        manifest = parts.catalog.by_version(body.version)
    except ModelUnknown as error:
        raise VersionRefused(error.detail, field="version") from error
    if named is not None and manifest is not named:
        raise VersionRefused(f"version {body.version!r} does not belong to {named.slug}", field="version")
    return manifest


def _job_spec(body: PredictionRequest, given: dict[str, Any], manifest: Manifest, parts: Context, job_id: str) -> JobSpec:
    """Fill in all that the caller left open. `given` is the input as it was sent, which the prediction echoes."""
    wanted = body.input
    try:
        parsed = parse_prompt(wanted.prompt, manifest, parts.settings.prompt_policy)
        negative = manifest.prompt.negative_prompt
        if wanted.negative_prompt is not None:
            negative = parse_negative_prompt(wanted.negative_prompt, manifest)
    except PromptInvalid as error:
        raise PromptInvalid(error.detail, field=f"input.{error.field}") from error
    seed = new_seed() if wanted.seed is None or not _names_seed(body) else wanted.seed
    render, doubts = render_spec(
        wanted, parsed, manifest, negative_prompt=negative, seed=seed, max_candidates=g.token.max_candidates
    )
    webhook, events = _webhook_of(body, parts)
    return JobSpec(
        id=job_id,
        tenant=g.tenant,
        model=manifest.slug,
        version=manifest.version,
        lane=check_priority(request.headers.get("X-Priority"), g.token.lanes),
        input=given,
        render=render,
        mix=[(color.name, share) for color, share in parsed.mix.ordered] if parsed.mix else [],
        warnings=[*parsed.warnings, *doubts, *_substitution(body, manifest)],
        base_url=base_url(),
        file_token=secrets.token_urlsafe(TOKEN_BYTES),
        stream_token=secrets.token_urlsafe(TOKEN_BYTES),
        filename=file_name(datetime.now(UTC).date(), str(parsed.mix or parsed.text), seed, render.output_format),
        webhook=webhook,
        webhook_events=events,
        cancel_after_s=check_cancel_after(request.headers.get("Cancel-After")),
    )


def _substitution(body: PredictionRequest, manifest: Manifest) -> list[str]:
    """Say so when the version that was asked for is an alias: the picture comes from another model than the caller wrote."""
    asked = (body.version or "").rpartition(":")[2]
    if not asked or "/" in asked or asked == manifest.version:
        return []
    return [f"version {asked} is served by {manifest.slug} on this server"]


def _webhook_of(body: PredictionRequest, parts: Context) -> tuple[str | None, list[Event]]:
    """Return the receiver's address, checked, and the events it gets. The older spelling counts where the newer is unset."""
    if body.webhook is not None:
        url, field, wanted = body.webhook, "webhook", body.webhook_events_filter
    elif body.webhook_completed is not None:
        url, field, wanted = body.webhook_completed, "webhook_completed", [Event.COMPLETED]
    else:
        return None, []
    if parts.settings.webhook_secret is None:
        raise WebhookUrlRefused("this server sends no webhooks: its operator has set no signing secret", field=field)
    check_url(url, parts.settings, field=field)
    return url, list(DEFAULT_EVENTS if wanted is None else dict.fromkeys(wanted))


def _body_hash(raw: dict[str, Any], manifest: Manifest) -> str:
    """Identify an order: two bodies that differ in the spelling of the version, key order or spacing alone are the same."""
    order = {name: value for name, value in raw.items() if name not in ("version", "id")} | {"version": manifest.version}
    return hashlib.sha256(json.dumps(order, sort_keys=True).encode()).hexdigest()


def _retry_count() -> int | None:
    """How often the client says that it sent this request before, as Replicate's second Python client does."""
    text = request.headers.get("x-stainless-retry-count", "")
    return min(int(text), RETRY_MAX) if RETRY_COUNT.fullmatch(text) else None


def _repeat_window_s(body: PredictionRequest) -> float:
    return SEEDED_REPEAT_S if _names_seed(body) and not wants_fresh(request.headers) else 0.0


def _names_seed(body: PredictionRequest) -> bool:
    return body.input.seed not in (None, -1)


def _start(parts: Context, created: Created) -> Created:
    """Tell the workers about a new job, unless a stored picture ends it here and now."""
    if created.source is None:
        _announce(parts, created.job.spec)
        return created
    try:
        with span("reuse"):
            ended = end_with_stored(created.job, created.source, parts.store, parts.storage)
        if ended is not None:
            return replace(created, job=ended)
        _announce(parts, created.job.spec)
        job, outlook = parts.store.view(created.job_id)
    except StoreUnavailable:
        # The job is on record; its lease brings it to a worker.
        log.warning("job %s could not be ended with a stored picture", created.job_id, extra={"job_id": created.job_id})
        return created
    return replace(created, job=job, outlook=outlook)


def _announce(parts: Context, spec: JobSpec) -> None:
    try:
        parts.enqueue(spec.id, model=spec.model, lane=spec.lane)
    except StoreUnavailable:
        # The record says that the job waits; the sweep announces it when the broker is back.
        log.warning("job %s is recorded, but its message could not be sent", spec.id, extra={"job_id": spec.id})


def _answer(parts: Context, created: Created, started_s: float) -> Response:
    job, outlook = created.job, created.outlook
    hold = hold_s(request.headers, hold_max_s=parts.settings.hold_max_s)
    if hold is not None and not job.status.is_terminal and parts.holds.acquire(blocking=False):
        try:
            # What the order itself took counts: the client's patience began with its request.
            left_s = max(0.0, hold - (time.monotonic() - started_s))
            job, outlook = parts.store.wait(job.id, left_s), Outlook()
            if not job.status.is_terminal:
                job, outlook = parts.store.view(job.id)
        except StoreUnavailable:
            # The job is on record: an error now would only make the caller order it again.
            log.warning("the hold of job %s ended early: no answer from Redis", job.id, extra={"job_id": job.id})
        finally:
            parts.holds.release()
    body = prediction(job, base_url=base_url(), outlook=outlook)
    if hold is not None and not job.status.is_terminal:
        # Official clients that asked to wait take every other status for an end, and would hand out an empty result.
        body["status"] = "starting"
    headers = {"Location": body["urls"]["get"]}
    if not created.is_new:
        headers["Idempotent-Replayed"] = "true"
    return json_response(body, 201 if created.is_new else 200, headers)
