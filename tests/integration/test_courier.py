from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr
from redis import Redis
from replicate.webhook import Webhooks, WebhookSigningSecret
from standardwebhooks import Webhook

from shared.errors import NotFound
from shared.job_store import JobStore
from shared.jobs import Event, Status
from shared.otlp import OtelTracer
from shared.outbox import SILENT_AFTER, Delivery, DeliveryState, Outbox
from shared.redis_client import connect
from shared.settings import Settings
from shared.webhooks import secret_of
from shared.wire import prediction
from tests.contracts.jobs import new_result, new_spec
from worker.courier import JITTER, RETRY_AFTER_S, deliver

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes....").decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"another one, from the year before").decode()


@dataclass
class Receiver:
    """A real HTTP server that answers as it is told and keeps what it got."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            time.sleep(state.delay_s)
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
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url, timeout_s=5) as client:
        yield client


@pytest.fixture
def store(redis: Redis) -> JobStore:
    return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)


@pytest.fixture
def outbox(redis: Redis) -> Outbox:
    return Outbox(redis, prefix="test:")


def finish_job(store: JobStore, url: str, traceparent: str | None = None) -> str:
    spec = new_spec(webhook=url, webhook_events=[Event.COMPLETED])
    store.create(spec, body_hash="h", queue_max_jobs=10, traceparent=traceparent)
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
    Webhooks.validate(
        headers=headers, body=body.decode(), secret=WebhookSigningSecret(key=secret_of(SECRET, "shop")), tolerance=60
    )
    job = store.get(job_id)
    assert job.status is Status.SUCCEEDED
    assert json.loads(body) == prediction(job, base_url=job.spec.base_url)
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


def test_each_try_is_a_span_of_the_jobs_trace(store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver) -> None:
    sent, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(sent))
    trace_id, order = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    finish_job(store, receiver.url, traceparent=f"00-{trace_id}-{order}-01")
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    for receiver.status in (500, 200):
        deliver(delivery_id, outbox=outbox, settings=settings, tracer=OtelTracer(provider))
    spans = sent.get_finished_spans()
    assert [(span.attributes["granule.try"], span.attributes["granule.note"]) for span in spans if span.attributes] == [
        (1, "HTTP 500"), (2, "HTTP 200"),
    ]  # fmt: skip
    assert [span.status.is_unset for span in spans] == [False, True]
    assert {f"{span.parent.span_id:016x}" for span in spans if span.parent} == {order}
    traceparents = [headers["traceparent"] for headers, _ in receiver.requests]
    assert traceparents == [f"00-{trace_id}-{span.context.span_id:016x}-01" for span in spans]


def test_without_a_collector_receivers_are_told_of_no_trace(
    store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver
) -> None:
    finish_job(store, receiver.url, traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    assert try_once(outbox, settings, delivery_id).state is DeliveryState.DELIVERED
    assert "traceparent" not in receiver.requests[0][0]


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
    assert delivery.state is DeliveryState.PENDING and delivery.note == "the host has an address that is not public"
    assert receiver.requests == []


def due_in_s(redis: Redis, delivery_id: str) -> float:
    due_ms = redis.zscore("test:deliveries:due", delivery_id)
    assert due_ms is not None
    return due_ms / 1000 - time.time()


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "017700000001",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "localtest",
    ],
)
def test_an_address_that_got_past_the_api_is_refused_in_every_spelling(
    host: str, store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver
) -> None:
    port = receiver.url.rsplit(":", 1)[1]
    strict = settings.model_copy(update={"webhook_allowed_hosts": ()})
    for scheme in ("http", "https"):
        finish_job(store, f"{scheme}://{host}:{port}")
    for delivery_id in outbox.take_due(limit=10, hold_s=60):
        assert try_once(outbox, strict, delivery_id).state is DeliveryState.DEAD
    assert receiver.requests == []


def test_while_secrets_change_either_one_verifies(
    store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver
) -> None:
    finish_job(store, receiver.url)
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    both = settings.model_copy(update={"webhook_secret_old": SecretStr(OLD_SECRET)})
    try_once(outbox, both, delivery_id)
    [(headers, body)] = receiver.requests
    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (secret_of(SECRET, "shop"), secret_of(OLD_SECRET, "shop")):
        Webhooks.validate(headers=headers, body=body.decode(), secret=WebhookSigningSecret(key=secret), tolerance=60)
        Webhook(secret).verify(body, headers)


@pytest.mark.parametrize(
    ("wanted", "least_s", "most_s"),
    [
        ("", 5 * (1 - JITTER) - 1, 5 * (1 + JITTER)),
        ("600", 598, 600),
        ("999999", 3598, 3600),
        ("-5", 3, 6),
        ("soon", 3, 6),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 3, 6),
        ("in ten minutes", 597, 600),
    ],
)
def test_a_receiver_may_ask_for_a_later_try(
    wanted: str, least_s: float, most_s: float, store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver,
    redis: Redis,
) -> None:  # fmt: skip
    finish_job(store, receiver.url)
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    if wanted == "in ten minutes":
        wanted = formatdate(time.time() + 600, usegmt=True)
    receiver.status, receiver.headers = 429, {"Retry-After": wanted}
    try_once(outbox, settings, delivery_id)
    assert least_s < due_in_s(redis, delivery_id) <= most_s


def test_a_receiver_that_never_answers_is_left_alone_and_then_probed_once(
    store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver, redis: Redis
) -> None:
    for _ in range(10):
        finish_job(store, receiver.url)
    hasty = settings.model_copy(update={"webhook_timeout_s": 0.05})
    receiver.delay_s = 0.3
    tried = 0
    while taken := outbox.take_due(limit=10, hold_s=60):
        for delivery_id in taken:
            assert try_once(outbox, hasty, delivery_id).note == "no answer in time"
            tried += 1
    assert SILENT_AFTER <= tried <= SILENT_AFTER + 1
    [(receiver_name, open_at_ms)] = redis.zrange("test:deliveries:receivers", 0, -1, withscores=True)
    assert 50 < open_at_ms / 1000 - time.time() <= 60
    redis.zadd("test:deliveries:receivers", {receiver_name: 0})
    [probe] = outbox.take_due(limit=10, hold_s=60)
    assert outbox.take_due(limit=10, hold_s=60) == []
    receiver.delay_s = 0.0
    assert try_once(outbox, settings, probe).state is DeliveryState.DELIVERED
    assert len(outbox.take_due(limit=10, hold_s=60)) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("record", "{"), ("record", "[]"), ("record", '["spec","{}"]'), ("attempts", "many"), ("event", "?"), ("url", None)],
)
def test_a_delivery_that_cannot_be_read_dies_at_once_and_holds_up_nothing(
    field: str, value: str | None, store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver, redis: Redis
) -> None:
    poison, good = finish_job(store, receiver.url), finish_job(store, receiver.url)
    if value is None:
        redis.hdel(f"test:delivery:{poison}.1", field)
    else:
        redis.hset(f"test:delivery:{poison}.1", field, value)
    for delivery_id in outbox.take_due(limit=10, hold_s=60):
        deliver(delivery_id, outbox=outbox, settings=settings)
    assert redis.hget(f"test:delivery:{poison}.1", "state") == "dead"
    assert redis.zrange("test:deliveries:dead", 0, -1) == [f"{poison}.1"]
    assert redis.zcard("test:deliveries:due") == 0
    assert [json.loads(body)["id"] for _, body in receiver.requests] == [good]
    outbox.dead()


def test_a_dead_delivery_sent_again_is_the_same_message(
    store: JobStore, outbox: Outbox, settings: Settings, receiver: Receiver
) -> None:
    job_id = finish_job(store, receiver.url)
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    receiver.status = 410
    try_once(outbox, settings, delivery_id)
    assert outbox.redeliver_dead() == 1 and outbox.dead() == (0, [])
    receiver.status = 200
    [again] = outbox.take_due(limit=10, hold_s=60)
    delivery = try_once(outbox, settings, again)
    assert (delivery.state, delivery.attempts) == (DeliveryState.DELIVERED, 1)
    assert [note for _, note in delivery.tries] == ["HTTP 410: the receiver wants no more", "HTTP 200"]
    outbox.redeliver(f"{job_id}.1")
    try_once(outbox, settings, *outbox.take_due(limit=10, hold_s=60))
    first, second, third = receiver.requests
    assert first[1] == second[1] == third[1]
    assert first[0]["webhook-id"] == second[0]["webhook-id"] == third[0]["webhook-id"]
    with pytest.raises(NotFound):
        outbox.redeliver(f"{job_id}.2")


def test_a_receiver_that_is_away_is_tried_again(store: JobStore, outbox: Outbox, settings: Settings) -> None:
    finish_job(store, "http://127.0.0.1:1/hook")
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    assert try_once(outbox, settings, delivery_id).state is DeliveryState.PENDING
