"""A collector of OpenTelemetry: a real HTTP server that decodes what it is sent, or takes its time."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse


@dataclass(frozen=True)
class Seen:
    """One span as it came: ids in hexadecimal, `parent_id` empty for a root, times in ns since 1970."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start_ns: int
    end_ns: int
    failed: bool
    attributes: dict[str, Any]
    events: tuple[str, ...]


@dataclass
class Collector:
    """What was sent to `url`. While `answers` is not set, requests are taken and nothing is said to them."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    answers: threading.Event = field(default_factory=threading.Event)

    def trace(self, trace_id: str) -> dict[str, list[Seen]]:
        """The spans of a trace that have come so far, by name."""
        found: dict[str, list[Seen]] = {}
        for span in (span for span in list(self.spans) if span.trace_id == trace_id):
            found.setdefault(span.name, []).append(span)
        return found


@contextmanager
def collecting(*, hangs: bool = False) -> Iterator[Collector]:
    state = Collector()
    if not hangs:
        state.answers.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.asked.set()
            state.answers.wait(60)
            assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            body = gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            state.spans += spans_of(ExportTraceServiceRequest.FromString(body))
            with suppress(BrokenPipeError, ConnectionResetError):  # who was kept waiting may be gone
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        state.answers.set()
        server.shutdown()
        thread.join()
        server.server_close()


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Seen]:
    for resource in request.resource_spans:
        service = values(resource.resource.attributes)["service.name"]
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            yield Seen(
                service=service,
                name=span.name,
                trace_id=span.trace_id.hex(),
                span_id=span.span_id.hex(),
                parent_id=span.parent_span_id.hex(),
                kind=span.kind,
                start_ns=span.start_time_unix_nano,
                end_ns=span.end_time_unix_nano,
                failed=span.status.code == 2,
                attributes=values(span.attributes),
                events=tuple(event.name for event in span.events),
            )


def values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
