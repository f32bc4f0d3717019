"""Where traces begin, what they say of failures, and what becomes of a process whose collector does not answer."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

import fakeredis
import pytest
from flask.testing import FlaskClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis import Redis

from api.server import create_app
from shared.errors import RenderFailed, StoreUnavailable
from shared.job_store import JobStore
from shared.jobs import Job
from shared.otlp import OtelTracer, make_tracer
from shared.settings import REPOSITORY, Settings
from shared.tracing import OFF, OFF_SPAN, Tracer, connect_tracer, current
from shared.worker_registry import WorkerRegistry
from tests.contracts.api import MIX, MODEL, SETTINGS, SHOP, idle_storage
from tests.contracts.jobs import new_spec
from tests.integration.collector import collecting
from worker.progress import CancelRequested
from worker.trail import Trail

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def sent() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(sent: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(sent))
    return OtelTracer(provider)


@pytest.fixture
def redis() -> Redis:
    return fakeredis.FakeRedis(decode_responses=True)


@pytest.fixture
def store(redis: Redis) -> JobStore:
    return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)


def client_of(redis: Redis, store: JobStore, tracer: Tracer) -> FlaskClient:
    workers = WorkerRegistry(redis, prefix="test:", ttl_s=15)
    app = create_app(
        SETTINGS, store=store, enqueue=lambda *_, **__: None, storage=idle_storage(), workers=workers, tracer=tracer
    )
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = SHOP["Authorization"]
    return client


@pytest.fixture
def client(redis: Redis, store: JobStore, tracer: Tracer) -> FlaskClient:
    return client_of(redis, store, tracer)


def order(client: FlaskClient, store: JobStore, **headers: str) -> Job:
    body = {"version": MODEL, "input": {"prompt": MIX}}
    answer = client.post("/v1/predictions", json=body, headers={name.replace("_", "-"): text for name, text in headers.items()})
    return store.get(answer.json["id"])


def only(sent: InMemorySpanExporter) -> ReadableSpan:
    [span] = sent.get_finished_spans()
    return span


# -- where a trace begins


def test_an_order_goes_on_with_its_callers_trace(client: FlaskClient, store: JobStore, sent: InMemorySpanExporter) -> None:
    job = order(client, store, traceparent=CALLER, tracestate="shop=secret")
    span = only(sent)
    assert job.traceparent == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert span.parent is not None and f"{span.parent.span_id:016x}" == SPAN
    assert not span.context.trace_state


@pytest.mark.parametrize(
    "header", ["", "nonsense", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", CALLER.upper(), "0" * 9000]
)
def test_what_is_no_traceparent_is_passed_over(
    client: FlaskClient, store: JobStore, sent: InMemorySpanExporter, header: str
) -> None:
    job = order(client, store, traceparent=header)
    assert only(sent).parent is None
    assert job.traceparent is not None and TRACE not in job.traceparent.lower()


def test_a_caller_who_does_not_record_decides_for_the_order(
    client: FlaskClient, store: JobStore, sent: InMemorySpanExporter, tracer: Tracer
) -> None:
    job = order(client, store, traceparent=f"00-{TRACE}-{SPAN}-00")
    assert job.traceparent is not None and job.traceparent.endswith("-00")
    tracer.resume(job.traceparent).child("attempt").end()
    assert sent.get_finished_spans() == ()


def test_nobody_but_a_known_caller_begins_a_trace(client: FlaskClient, sent: InMemorySpanExporter) -> None:
    answer = client.post("/v1/predictions", json={}, headers={"Authorization": "Bearer wrong", "traceparent": CALLER})
    assert answer.status_code == 401
    client.get("/v1/predictions")
    assert sent.get_finished_spans() == () and current() is OFF_SPAN


def test_a_refused_order_is_a_trace_of_its_own(client: FlaskClient, sent: InMemorySpanExporter) -> None:
    assert client.post("/v1/predictions", json={"version": MODEL, "input": {"prompt": "110% red"}}).status_code == 422
    span = only(sent)
    assert span.attributes is not None and span.attributes["http.response.status_code"] == 422
    assert span.status.is_unset and current() is OFF_SPAN


def test_an_order_that_could_not_be_taken_is_a_failure(
    client: FlaskClient, store: JobStore, sent: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("Redis does not answer")

    monkeypatch.setattr(store, "create", away)
    assert client.post("/v1/predictions", json={"version": MODEL, "input": {"prompt": MIX}}).status_code == 503
    span = only(sent)
    assert span.attributes is not None and span.attributes["error.type"] == "503" and not span.status.is_ok
    assert not span.status.is_unset


def test_a_repeat_is_the_same_job_in_another_trace(client: FlaskClient, store: JobStore, sent: InMemorySpanExporter) -> None:
    """The trace is no part of what an order is."""
    first = order(client, store, traceparent=CALLER, Idempotency_Key="k")
    again = order(client, store, Idempotency_Key="k")
    assert again.id == first.id and again.traceparent == first.traceparent
    repeats = [span.attributes["granule.is_repeat"] for span in sent.get_finished_spans() if span.attributes]
    assert repeats == [False, True]


def test_without_a_collector_no_trace_is_on_record(redis: Redis, store: JobStore) -> None:
    job = order(client_of(redis, store, OFF), store, traceparent=CALLER)
    assert job.traceparent is None and not redis.hexists(f"test:job:{job.id}", "traceparent")


# -- what a worker says of a job


@pytest.fixture
def job(store: JobStore) -> Job:
    spec = new_spec()
    store.create(spec, body_hash="h", queue_max_jobs=10, traceparent=CALLER)
    claimed = store.claim(spec.id, worker="w", delivery_token="1")
    assert claimed is not None and claimed.traceparent == CALLER
    return claimed


@pytest.mark.parametrize(("error", "code"), [(RenderFailed("50% red"), "render_failed"), (ValueError("50% red"), "ValueError")])
def test_a_failed_phase_names_the_error_and_not_what_it_says(
    job: Job, tracer: Tracer, sent: InMemorySpanExporter, error: Exception, code: str
) -> None:
    trail = Trail(job, tracer)
    with pytest.raises(type(error)), trail.phase("denoise"):
        raise error
    trail.end(error)
    spans = {span.name: span for span in sent.get_finished_spans()}
    assert {span.attributes["error.type"] for name, span in spans.items() if span.attributes and name != "queued"} == {code}
    assert not any("red" in span.to_json() or span.events for span in spans.values())


def test_a_job_that_was_called_off_did_not_fail(job: Job, tracer: Tracer, sent: InMemorySpanExporter) -> None:
    trail = Trail(job, tracer)
    with pytest.raises(CancelRequested), trail.phase("denoise"):
        raise CancelRequested
    trail.end()
    assert all(span.status.is_unset for span in sent.get_finished_spans())


def test_a_job_without_a_trace_leaves_none(store: JobStore, tracer: Tracer, sent: InMemorySpanExporter) -> None:
    spec = new_spec()
    job = store.create(spec, body_hash="h", queue_max_jobs=10).job
    trail = Trail(job, tracer)
    with trail.phase("denoise") as span, trail.span.here():
        span.event("step")
        assert current() is OFF_SPAN
    trail.end()
    assert sent.get_finished_spans() == ()


# -- the collector, and the extra


def test_a_process_waits_for_a_hanging_collector_for_a_moment_only() -> None:
    with collecting(hangs=True) as collector:
        tracer = make_tracer(Settings(otel_exporter_otlp_endpoint=collector.url), "test")
        tracer.begin("order", caller=None).end()
        closing = threading.Thread(target=tracer.close)
        closing.start()
        assert collector.asked.wait(30)
        closing.join(25)  # the library alone would wait for thirty seconds
        assert not closing.is_alive() and collector.spans == []


def test_what_was_not_sent_yet_is_sent_at_the_end() -> None:
    with collecting() as collector:
        headers = "authorization=Basic%20YTpi, x-tenant = house "
        settings = Settings(otel_exporter_otlp_endpoint=f"{collector.url}/", otel_exporter_otlp_headers=headers)
        tracer = make_tracer(settings, "test")
        tracer.begin("order", caller=CALLER).end()
        tracer.close()
        assert [(span.name, span.trace_id, span.service) for span in collector.spans] == [("order", TRACE, "test")]
        assert (collector.headers[0]["authorization"], collector.headers[0]["x-tenant"]) == ("Basic YTpi", "house")


def test_an_operators_name_for_the_service_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "tiles")
    with collecting() as collector:
        tracer = make_tracer(Settings(otel_exporter_otlp_endpoint=collector.url), "granule-api")
        tracer.begin("order", caller=None).end()
        tracer.close()
        assert [span.service for span in collector.spans] == ["tiles"]


def test_without_a_collector_no_sender_is_loaded() -> None:
    code = (
        "import sys, worker.tasks\nfrom api.server import create_app\ncreate_app()\n"
        "parts = ('shared.otlp', 'opentelemetry.sdk.trace', 'opentelemetry.exporter')\n"
        "sys.exit(str([name for name in sys.modules if name.startswith(parts)] or '') or 0)"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("GRANULE_", "OTEL_"))}
    done = subprocess.run([sys.executable, "-c", code], env=environ, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_the_extra_the_log_says_so_and_all_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "shared.otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with caplog.at_level(logging.ERROR):
        assert connect_tracer(Settings(otel_exporter_otlp_endpoint="http://127.0.0.1:4318"), "test") is OFF
    assert "granule[trace]" in caplog.text


def test_the_librarys_own_switch_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracer = make_tracer(Settings(otel_exporter_otlp_endpoint="http://127.0.0.1:1"), "test")
    assert tracer.begin("order", caller=None) is OFF_SPAN
    tracer.close()
