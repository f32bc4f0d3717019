"""Spans that are recorded and sent to a collector by OTLP over HTTP, as `shared/tracing.py` describes them.

Needs the extra `trace`. Spans are sent by a thread of their own, which holds a bounded number of them and lets go of those
that nobody takes: a collector that is away or hangs delays nothing but the end of a process, by `FLUSH_LIMIT_S`.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.settings import Settings
from shared.tracing import CURRENT, OFF_SPAN, Attributes, Kind, Span, Tracer

FLUSH_LIMIT_S = 2.0

KINDS: dict[Kind, trace.SpanKind] = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "consumer": trace.SpanKind.CONSUMER,
}


class OtelSpan(Span):
    """A span of OpenTelemetry. Of one that this process only knows by name, `known` is all there is."""

    def __init__(self, known: trace.Span, tracer: trace.Tracer) -> None:
        self._span = known
        self._tracer = tracer
        self._lock = threading.Lock()
        self._is_open = known.is_recording()
        self._here: AbstractContextManager[None] = nullcontext()

    @property
    def traceparent(self) -> str:
        """What names this span to others. The caller's `tracestate` is not in it: nothing of others is handed on."""
        context = self._span.get_span_context()
        return f"00-{self.ids['trace_id']}-{self.ids['span_id']}-{context.trace_flags:02x}"

    @property
    def ids(self) -> Mapping[str, str]:
        """`trace_id` and `span_id` in hexadecimal."""
        context = self._span.get_span_context()
        return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}

    def child(
        self, name: str, attributes: Attributes | None = None, *, kind: Kind = "internal", began_ago_s: float = 0.0
    ) -> Span:
        """Begin a span below this one; it may have begun a while ago."""
        return _begin(self._tracer, name, attributes, kind, trace.set_span_in_context(self._span, Context()), began_ago_s)

    def set(self, attributes: Attributes) -> None:
        """Add to what is said of it."""
        self._span.set_attributes(attributes)

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Note that something happened now."""
        self._span.add_event(name, attributes)

    def end(self, error: str | None = None) -> None:
        """End it, as failed if there is the code of an `error`."""
        with self._lock:
            was_open, self._is_open = self._is_open, False
        if not was_open:
            return
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()

    @contextmanager
    def here(self) -> Iterator[None]:
        """Have `current` return this span in this thread for a while, without an end to it."""
        token = CURRENT.set(self)
        try:
            yield
        finally:
            CURRENT.reset(token)

    def __enter__(self) -> Self:
        self._here = self.here()
        self._here.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._here.__exit__(None, None, None)
        super().__exit__(kind, error, where)


class OtelTracer(Tracer):
    """Begins spans that `provider` sends."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("granule")

    def begin(self, name: str, attributes: Attributes | None = None, *, caller: str | None) -> Span:
        """Begin the span of a request, in the caller's trace if it named one."""
        return _begin(self._tracer, name, attributes, "server", _context_of(caller), 0.0)

    def resume(self, traceparent: str | None) -> Span:
        """Return the span of another process."""
        return _known(trace.get_current_span(_context_of(traceparent)), self._tracer)

    def close(self) -> None:
        """Send what was not sent yet, for `FLUSH_LIMIT_S` at most."""
        self._provider.shutdown()


class Batches(BatchSpanProcessor):
    """Sends spans in batches, and gives up soon at the end of the process."""

    def shutdown(self) -> None:
        """Send what is left. The library would wait for half a minute, and takes its limit in no other place."""
        self._batch_processor.shutdown(timeout_millis=int(FLUSH_LIMIT_S * 1000))


def make_tracer(settings: Settings, service: str) -> OtelTracer:
    """Build the tracer of one process of `service`. It ends with the process."""
    ours = {"service.namespace": "granule", "service.name": service, "service.instance.id": _instance(settings)}
    # What an operator says in OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES wins.
    provider = TracerProvider(resource=Resource.create(ours).merge(OTELResourceDetector().detect()))
    endpoint = f"{(settings.otel_exporter_otlp_endpoint or '').rstrip('/')}/v1/traces"
    provider.add_span_processor(Batches(OTLPSpanExporter(endpoint=endpoint, headers=_headers(settings))))
    return OtelTracer(provider)


def _headers(settings: Settings) -> dict[str, str]:
    """Read `name=value,name=value`, percent-encoded, whose form the settings have checked."""
    given = settings.otel_exporter_otlp_headers
    entries = [] if given is None else [entry.partition("=") for entry in given.get_secret_value().split(",") if entry.strip()]
    return {name.strip().lower(): unquote(value.strip()) for name, _, value in entries}


def _instance(settings: Settings) -> str:
    return settings.worker_name or f"{socket.gethostname()}-{os.getpid()}"


def _context_of(traceparent: str | None) -> Context:
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent or ""}, Context())


def _begin(
    tracer: trace.Tracer, name: str, attributes: Attributes | None, kind: Kind, context: Context, began_ago_s: float
) -> Span:
    began_ns = time.time_ns() - int(began_ago_s * 1e9)
    return _known(tracer.start_span(name, context, KINDS[kind], attributes, start_time=began_ns), tracer)


def _known(span: trace.Span, tracer: trace.Tracer) -> Span:
    """Wrap a span. One without a name is of no trace: a `traceparent` that was none, or OTEL_SDK_DISABLED."""
    return OtelSpan(span, tracer) if span.get_span_context().is_valid else OFF_SPAN
