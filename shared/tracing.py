"""Traces: what becomes of one order, from the request to its webhooks, as spans for an OpenTelemetry collector.

This module is what all other code calls, and it does nothing: no span is recorded, nothing of OpenTelemetry is imported.
`shared/otlp.py` does both, where the settings name a collector. A span never holds a prompt, a tenant or a token.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Literal, Self

from shared.errors import GranuleError
from shared.settings import Settings

Kind = Literal["internal", "server", "client", "consumer"]
Attributes = Mapping[str, str | int | float | bool]

log = logging.getLogger(__name__)


class Span:
    """One stretch of a trace. This one is recorded by nobody, and its children are not either.

    In a `with` it is what `current` returns in this thread, and it ends with it; what is raised there marks it as failed.
    """

    @property
    def traceparent(self) -> str | None:
        """What names this span to others, in the form of the W3C's header. None: there is no trace."""
        return None

    @property
    def ids(self) -> Mapping[str, str]:
        """`trace_id` and `span_id` in hexadecimal, for log lines; nothing where there is no trace."""
        return {}

    def child(
        self, name: str, attributes: Attributes | None = None, *, kind: Kind = "internal", began_ago_s: float = 0.0
    ) -> Span:
        """Begin a span below this one; it may have begun a while ago."""
        return self

    def set(self, attributes: Attributes) -> None:
        """Add to what is said of it."""

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Note that something happened now."""

    def end(self, error: str | None = None) -> None:
        """End it, as failed if there is the code of an `error`. What comes after the first end is passed over."""

    def here(self) -> AbstractContextManager[None]:
        """Have `current` return this span in this thread for a while, without an end to it."""
        return nullcontext()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.end(None if error is None else code_of(error))


class Tracer:
    """Begins spans. This one is off: a process without a collector has it."""

    def begin(self, name: str, attributes: Attributes | None = None, *, caller: str | None) -> Span:
        """Begin the span of a request; `caller` is its `traceparent`, if it had one: what is no such header is passed over."""
        return OFF_SPAN

    def resume(self, traceparent: str | None) -> Span:
        """Return the span of another process, to begin children of. Without a `traceparent` nothing of it is recorded."""
        return OFF_SPAN

    def close(self) -> None:
        """Send what was not sent yet, for a short while at most. Nothing is recorded after it."""


OFF_SPAN = Span()
OFF = Tracer()

CURRENT: ContextVar[Span] = ContextVar("span", default=OFF_SPAN)
"""The span that this thread is in."""


def current() -> Span:
    """Return the span that this thread is in."""
    return CURRENT.get()


def span(name: str, attributes: Attributes | None = None) -> Span:
    """Begin a span below the one that this thread is in."""
    return current().child(name, attributes)


def code_of(error: BaseException) -> str:
    """Name an error without what it says, in which there may be a caller's words: its code, or its class."""
    return error.code if isinstance(error, GranuleError) else type(error).__name__


def connect_tracer(settings: Settings, service: str) -> Tracer:
    """Return the tracer of this process, which is one of `service`. Nothing is sent yet.

    Where the extra `trace` is not installed it is off, and the log says so: a picture is worth more than its trace.
    """
    if settings.otel_exporter_otlp_endpoint is None:
        return OFF
    try:
        otlp: Any = importlib.import_module("shared.otlp")
    except ImportError as error:
        log.error("a collector is set, but no traces are sent: install granule[trace] (%s)", error)
        return OFF
    tracer: Tracer = otlp.make_tracer(settings, service)
    return tracer
