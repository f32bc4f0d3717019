"""The span of a request that orders a picture: where a trace begins, or where a caller's goes on."""

from __future__ import annotations

from contextlib import ExitStack
from http import HTTPStatus

from flask import Flask, Response, g, request

from api.context import context
from shared.tracing import Span, current


def register_tracing(app: Flask) -> None:
    """Have the spans that `begin_order` begins end with their requests."""
    app.after_request(_note_status)
    app.teardown_request(_end)


def begin_order() -> Span:
    """Begin the span of this request, in the trace of its `traceparent` if it has one. It is the current one until its end.

    Called when the caller is known: nobody else can begin a trace. `tracestate` and `baggage` are left where they are.
    """
    route = request.url_rule.rule if request.url_rule else ""
    attributes = {"http.request.method": request.method, "http.route": route}
    span = context().tracer.begin(f"{request.method} {route}", attributes, caller=request.headers.get("traceparent"))
    stack = g.order_span = ExitStack()
    stack.enter_context(span)
    return span


def _note_status(response: Response) -> Response:
    if "order_span" in g:
        span, status = current(), response.status_code
        span.set({"http.response.status_code": status})
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            span.end(error=str(status))
    return response


def _end(error: BaseException | None) -> None:
    if "order_span" in g:
        g.pop("order_span").close()
