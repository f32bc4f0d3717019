"""The courier: carries webhook messages to their receivers. Whatever happens here, no job ever notices."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urlsplit

from shared.errors import WebhookUrlRefused
from shared.metrics import DELIVERY_DURATION, DELIVERY_TRIES
from shared.outbox import Delivery, DeliveryState, DeliveryUnreadable, Outbox, Reaction
from shared.settings import Settings
from shared.tracing import OFF, Attributes, Span, Tracer, current
from shared.webhooks import check_url, is_allowed_host, secret_of, sign
from shared.wire import compact_json, prediction
from worker.egress import Answer, NoAnswer, post

log = logging.getLogger(__name__)

RETRY_AFTER_S = (5, 30, 120, 600, 1800, 7200, 18000, 36000)
"""Gaps between the tries of one delivery; after the last one it is dead. Each is varied by a fifth either way."""
RETRY_AFTER_MAX_S = 3600
JITTER = 0.2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one try brought: the state that follows, a note for people, and the gap the receiver asked for, if it did."""

    state: DeliveryState
    note: str
    reaction: Reaction
    retry_after_s: float | None = None


def deliver(delivery_id: str, *, outbox: Outbox, settings: Settings, tracer: Tracer = OFF) -> None:
    """Try a delivery once and record what came of it. One that was settled before is left alone.

    The try is a span of the job's trace, if it has one, and the receiver is told its `traceparent`.

    Raises:
        StoreUnavailable: the outbox cannot be read or written; the delivery comes round again.
    """
    try:
        delivery = outbox.get(delivery_id)
        if delivery is None or delivery.state is not DeliveryState.PENDING:
            return
        body = delivery.body or outbox.fix_body(delivery_id, _render(delivery))
        with _begin_span(delivery, tracer) as span:
            outcome = _try(delivery, body, settings)
            span.set({"granule.outcome": str(outcome.state), "granule.note": outcome.note})
            if outcome.state is not DeliveryState.DELIVERED:
                span.end(error="not_delivered")
    except DeliveryUnreadable as error:
        log.error("%s; it is dead", error)
        outbox.discard(delivery_id, note=error.detail)
        DELIVERY_TRIES.labels(DeliveryState.DEAD).inc()
        return
    if outcome.state is DeliveryState.PENDING and delivery.attempts >= len(RETRY_AFTER_S):
        outcome = Outcome(DeliveryState.DEAD, f"{outcome.note}; that was the last try", outcome.reaction)
    retry_s = _gap_s(delivery.attempts, outcome.retry_after_s) if outcome.state is DeliveryState.PENDING else 0.0
    outbox.settle(delivery, outcome.state, note=outcome.note, retry_s=retry_s, reaction=outcome.reaction)
    DELIVERY_TRIES.labels(outcome.state).inc()
    log.info(
        "delivery %s of job %s: %s (%s)",
        delivery.id,
        delivery.job_id,
        outcome.state,
        outcome.note,
        extra={"job_id": delivery.job_id},
    )


def _begin_span(delivery: Delivery, tracer: Tracer) -> Span:
    """Begin the span of one try. Raises DeliveryUnreadable."""
    about: Attributes = {
        "granule.job_id": delivery.job_id,
        "granule.event": str(delivery.event),
        "granule.delivery": delivery.id,
        "granule.try": delivery.attempts + 1,
        "http.request.method": "POST",
        "server.address": urlsplit(delivery.url).hostname or "",
    }
    return tracer.resume(delivery.job.traceparent).child("webhook", about, kind="client")


def _render(delivery: Delivery) -> bytes:
    """Write the body: the prediction as it was when the event happened. Raises DeliveryUnreadable."""
    job = delivery.job
    try:
        return compact_json(prediction(job, base_url=job.spec.base_url))
    except (ValueError, OverflowError) as error:
        raise DeliveryUnreadable(f"delivery {delivery.id} cannot be written as JSON") from error


def _try(delivery: Delivery, body: bytes, settings: Settings) -> Outcome:
    try:
        check_url(delivery.url, settings)
    except WebhookUrlRefused as error:
        return Outcome(DeliveryState.DEAD, error.detail, Reaction.UNASKED)
    if settings.webhook_secret is None:
        return Outcome(DeliveryState.PENDING, "no signing secret is set", Reaction.UNASKED)
    old, tenant = settings.webhook_secret_old, delivery.job.spec.tenant
    headers = sign(
        secret_of(settings.webhook_secret.get_secret_value(), tenant),
        delivery.message_id,
        int(time.time()),
        body,
        old_secret=None if old is None else secret_of(old.get_secret_value(), tenant),
    )
    headers |= {
        "Content-Type": "application/json",
        "User-Agent": "granule-webhooks/1",
        "Granule-Event": delivery.event,
        "Granule-Sequence": str(delivery.seq),
    }
    if traceparent := current().traceparent:
        headers["traceparent"] = traceparent
    public_only = not is_allowed_host(delivery.url, settings)
    try:
        with DELIVERY_DURATION.time():
            answer = post(delivery.url, body, headers, timeout_s=settings.webhook_timeout_s, public_only=public_only)
        return _judge(answer)
    except NoAnswer as error:
        return Outcome(DeliveryState.PENDING, error.detail, Reaction.SILENT)


def _judge(answer: Answer) -> Outcome:
    note = f"HTTP {answer.status}"
    if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
        return Outcome(DeliveryState.DELIVERED, note, Reaction.ANSWERED)
    if answer.status == HTTPStatus.GONE:
        return Outcome(DeliveryState.DEAD, f"{note}: the receiver wants no more", Reaction.ANSWERED)
    return Outcome(DeliveryState.PENDING, note, Reaction.ANSWERED, _wanted_s(answer.retry_after))


def _wanted_s(retry_after: str) -> float | None:
    """Read `Retry-After`: whole seconds or an HTTP date (RFC 9110, 10.2.3). Anything else is passed over."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None


def _gap_s(attempts: int, wanted_s: float | None) -> float:
    """How long to wait after `attempts` earlier tries and this one; a receiver may ask for more, up to an hour."""
    gap_s = RETRY_AFTER_S[attempts] * random.uniform(1 - JITTER, 1 + JITTER)
    return max(gap_s, min(wanted_s or 0.0, RETRY_AFTER_MAX_S))
