"""The courier: carries webhook messages to their receivers. Whatever happens here, no job ever notices."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from http import HTTPStatus

import requests
from requests_hardened import Config, Manager

from shared.errors import WebhookUrlRefused
from shared.outbox import Delivery, DeliveryState, Outbox
from shared.settings import Settings
from shared.webhooks import check_url, is_allowed_host, sign
from shared.wire import compact_json, prediction

log = logging.getLogger(__name__)

RETRY_AFTER_S = (5, 30, 120, 600, 1800, 7200, 18000, 36000)
"""Gaps between the tries of one delivery; after the last one it is dead. Each is varied by a fifth either way."""
RETRY_AFTER_MAX_S = 3600
JITTER = 0.2
CONNECT_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one try brought: the state that follows, a note for the log, and the gap the receiver asked for, if it did."""

    state: DeliveryState
    note: str
    retry_after_s: float | None = None


def deliver(delivery_id: str, *, outbox: Outbox, settings: Settings) -> None:
    """Try a delivery once and record what came of it. One that was settled before is left alone.

    Raises:
        StoreUnavailable: the outbox cannot be read or written; the delivery comes round again.
    """
    delivery = outbox.get(delivery_id)
    if delivery is None or delivery.state is not DeliveryState.PENDING:
        return
    body = delivery.body
    if body is None:
        body = outbox.fix_body(delivery_id, compact_json(prediction(delivery.job, base_url=delivery.job.spec.base_url)))
    answer = _send(delivery, body, settings)
    if answer.state is DeliveryState.PENDING and delivery.attempts >= len(RETRY_AFTER_S):
        answer = Answer(DeliveryState.DEAD, f"{answer.note}; that was the last try")
    retry_s = _gap_s(delivery.attempts, answer.retry_after_s) if answer.state is DeliveryState.PENDING else 0.0
    outbox.settle(delivery, answer.state, note=answer.note, retry_s=retry_s)
    log.info("delivery %s of job %s: %s (%s)", delivery.id, delivery.job.id, answer.state, answer.note)


def _send(delivery: Delivery, body: bytes, settings: Settings) -> Answer:
    """Make one request: no redirects, no proxies from the environment, and an address that is checked as it is connected to."""
    try:
        check_url(delivery.url, settings)
    except WebhookUrlRefused as error:
        return Answer(DeliveryState.DEAD, error.detail)
    if settings.webhook_secret is None:
        return Answer(DeliveryState.PENDING, "no signing secret is set")
    headers = sign(settings.webhook_secret.get_secret_value(), delivery.message_id, int(time.time()), body)
    headers |= {"Content-Type": "application/json", "Granule-Event": delivery.event, "Granule-Sequence": str(delivery.seq)}
    hardened = Manager(
        Config(
            ip_filter_enable=not is_allowed_host(delivery.url, settings),
            ip_filter_allow_loopback_ips=False,
            never_redirect=True,
            default_timeout=(CONNECT_TIMEOUT_S, settings.webhook_timeout_s),
            user_agent_override="granule-webhooks/1",
        )
    )
    try:
        with hardened.get_session() as session:
            session.trust_env = False
            with session.request("POST", delivery.url, data=body, headers=headers, stream=True) as response:
                return _judge(response)
    except requests.RequestException as error:
        return Answer(DeliveryState.PENDING, f"no answer: {type(error).__name__}")


def _judge(response: requests.Response) -> Answer:
    note = f"HTTP {response.status_code}"
    if response.ok and not response.is_redirect:
        return Answer(DeliveryState.DELIVERED, note)
    if response.status_code == HTTPStatus.GONE:
        return Answer(DeliveryState.DEAD, f"{note}: the receiver wants no more")
    wanted = response.headers.get("Retry-After", "")
    return Answer(DeliveryState.PENDING, note, float(wanted) if wanted.isascii() and wanted.isdigit() else None)


def _gap_s(attempts: int, wanted_s: float | None) -> float:
    """How long to wait after `attempts` earlier tries and this one; a receiver may ask for more, up to an hour."""
    gap_s = RETRY_AFTER_S[attempts] * random.uniform(1 - JITTER, 1 + JITTER)
    return max(gap_s, min(wanted_s or 0.0, RETRY_AFTER_MAX_S))
