from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr
from replicate.webhook import Webhooks, WebhookSigningSecret

from shared.job_store import JobStore
from shared.jobs import Event, Status
from shared.outbox import Delivery, DeliveryState, Outbox
from shared.redis_client import connect
from shared.settings import Settings
from tests.contracts.jobs import new_result, new_spec
from worker.courier import RETRY_AFTER_S, deliver

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes....").decode()


@dataclass
class Receiver:
    """A real HTTP server that answers as it is told and keeps what it got."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def settings() -> Settings:
    return Settings(webhook_secret=SecretStr(SECRET), webhook_allowed_hosts=("127.0.0.1",), webhook_timeout_s=2)


@pytest.fixture
def store(redis_url: str) -> JobStore:
    return JobStore(connect(redis_url, timeout_s=5), prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)


@pytest.fixture
def outbox(redis_url: str) -> Outbox:
    return Outbox(connect(redis_url, timeout_s=5), prefix="test:")


def finish_job(store: JobStore, url: str) -> str:
    spec = new_spec(webhook=url, webhook_events=[Event.COMPLETED])
    store.create(spec, body_hash="h", queue_max_jobs=10)
    store.claim(spec.id, worker="a", delivery_token="1")
    store.succeed(spec.id, 1, new_result())
    return spec.id


def try_once(outbox: Outbox, settings: Settings, delivery_id: str) -> Delivery:
    deliver(delivery_id, outbox=outbox, settings=settings)
    delivery = outbox.get(delivery_id)
    assert delivery is not None
    return delivery


def test_the_official_client_accepts_the_signature(
    store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver
) -> None:
    job_id = finish_job(store, receiver.url)
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    assert try_once(outbox, settings, delivery_id).state is DeliveryState.DELIVERED
    [(headers, body)] = receiver.requests
    Webhooks.validate(headers=headers, body=body.decode(), secret=WebhookSigningSecret(key=SECRET), tolerance=60)
    assert json.loads(body)["id"] == job_id and json.loads(body)["status"] == "succeeded"
    assert body == json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False).encode()


def test_a_failing_receiver_gets_the_same_message_again(
    store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver
) -> None:
    job_id = finish_job(store, receiver.url)
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    receiver.status = 500
    first = try_once(outbox, settings, delivery_id)
    assert (first.state, first.attempts, first.note) == (DeliveryState.PENDING, 1, "HTTP 500")
    receiver.status = 204
    assert try_once(outbox, settings, delivery_id).state is DeliveryState.DELIVERED
    (headers_1, body_1), (headers_2, body_2) = receiver.requests
    assert headers_1["webhook-id"] == headers_2["webhook-id"] and body_1 == body_2
    assert store.get(job_id).status is Status.SUCCEEDED


def test_a_settled_delivery_is_not_sent_again(store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver) -> None:
    finish_job(store, receiver.url)
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    try_once(outbox, settings, delivery_id)
    try_once(outbox, settings, delivery_id)
    assert len(receiver.requests) == 1


def test_redirects_are_not_followed(store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver) -> None:
    finish_job(store, receiver.url)
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    receiver.status, receiver.headers = 302, {"Location": receiver.url}
    assert try_once(outbox, settings, delivery_id).state is DeliveryState.PENDING
    assert len(receiver.requests) == 1


def test_gone_means_never_again(store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver) -> None:
    finish_job(store, receiver.url)
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    receiver.status = 410
    assert try_once(outbox, settings, delivery_id).state is DeliveryState.DEAD


def test_the_last_try_ends_in_the_dead_letters(store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver) -> None:
    finish_job(store, receiver.url)
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    receiver.status = 500
    states = [try_once(outbox, settings, delivery_id).state for _ in range(len(RETRY_AFTER_S) + 1)]
    assert states == [*[DeliveryState.PENDING] * len(RETRY_AFTER_S), DeliveryState.DEAD]


def test_nothing_is_sent_to_a_private_address_that_nobody_vouches_for(
    store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver
) -> None:
    finish_job(store, receiver.url)
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    strict = settings.model_copy(update={"webhook_allowed_hosts": ()})
    assert try_once(outbox, strict, delivery_id).state is DeliveryState.DEAD
    assert receiver.requests == []


def test_a_public_name_that_means_a_private_address_is_not_connected_to(
    store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(receiver.url.rsplit(":", 1)[1].split("/")[0])
    resolve = socket.getaddrinfo

    def rebind(host: str, *args: object, **kwargs: object) -> object:
        if host == "rebinding.example.com":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        return resolve(host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    finish_job(store, "https://rebinding.example.com/hook")
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    delivery = try_once(outbox, settings, delivery_id)
    assert delivery.state is DeliveryState.PENDING and delivery.note == "no answer: InvalidIPAddress"
    assert receiver.requests == []


def test_a_receiver_that_is_away_is_tried_again(store: JobStore, outbox: Outbox, settings: Settings) -> None:
    finish_job(store, "http://127.0.0.1:1/hook")
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    assert try_once(outbox, settings, delivery_id).state is DeliveryState.PENDING
