"""Errors as HTTP: which status each one is, and its body as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import NotRequired

from flask import Flask, Response
from typing_extensions import TypedDict
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import NotFound as RouteNotFound

from shared.errors import (
    Forbidden,
    Gone,
    GranuleError,
    IdempotencyConflict,
    InputInvalid,
    NotFound,
    QueueFull,
    RateLimited,
    StorageUnavailable,
    StoreUnavailable,
    Unauthenticated,
)
from shared.wire import compact_json

MEDIA_TYPE = "application/problem+json"
UNAVAILABLE_RETRY_AFTER_S = 5


class InvalidField(TypedDict):
    """One complaint about the request: a stable word for its kind, the dotted path of the field, and a sentence."""

    type: str
    field: str
    description: str


class Problem(TypedDict):
    """The body of every error.

    `code` is the stable word of `shared.errors`, or HTTP's own for a wrong method or address. `invalid_fields` names what in
    the request is wrong: a field of the body by its path, a header or a parameter by its name. `retry_after`, in whole
    seconds, says the same as the header.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    invalid_fields: NotRequired[list[InvalidField]]
    retry_after: NotRequired[int]


class BodyInvalid(InputInvalid):
    """The request's body breaks its schema in one or more places, listed in `invalid_fields`."""

    def __init__(self, detail: str, invalid_fields: Sequence[InvalidField]) -> None:
        super().__init__(detail)
        self.invalid_fields = list(invalid_fields)


class VersionRefused(InputInvalid):
    """The body names a model version that this server does not have."""

    code = "model_unknown"


PROBLEMS: dict[type[GranuleError], tuple[HTTPStatus, str]] = {
    Unauthenticated: (HTTPStatus.UNAUTHORIZED, "Unauthenticated"),
    Forbidden: (HTTPStatus.FORBIDDEN, "Forbidden"),
    NotFound: (HTTPStatus.NOT_FOUND, "Not found"),
    Gone: (HTTPStatus.GONE, "Gone"),
    VersionRefused: (HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid version or not permitted"),
    InputInvalid: (HTTPStatus.UNPROCESSABLE_ENTITY, "Input validation failed"),
    IdempotencyConflict: (HTTPStatus.UNPROCESSABLE_ENTITY, "Idempotency key reused"),
    QueueFull: (HTTPStatus.TOO_MANY_REQUESTS, "Too many requests"),
    RateLimited: (HTTPStatus.TOO_MANY_REQUESTS, "Too many requests"),
    StoreUnavailable: (HTTPStatus.SERVICE_UNAVAILABLE, "Service unavailable"),
    StorageUnavailable: (HTTPStatus.SERVICE_UNAVAILABLE, "Service unavailable"),
    GranuleError: (HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error"),
}
"""Status and title of each error; a class that is not listed has its parent's."""

HTTP_PROBLEMS: dict[int, tuple[str, str | None]] = {
    400: ("bad_request", "request"),
    404: ("not_found", "url"),
    405: ("method_not_allowed", "method"),
    413: ("body_too_large", "body"),
    414: ("url_too_long", "url"),
    415: ("unsupported_media_type", "Content-Type"),
    416: ("range_not_satisfiable", "Range"),
    431: ("headers_too_large", "headers"),
    501: ("not_implemented", None),
}
"""Code of each of HTTP's own errors, and what in the request it is about. Their names in libraries change with HTTP's texts."""


def register_problems(app: Flask) -> None:
    """Make every error that leaves a view a problem document: ours, those of HTTP itself, and bugs (500, logged)."""
    app.register_error_handler(GranuleError, _from_error)
    app.register_error_handler(HTTPException, _from_http)


def problem_response(error: GranuleError | HTTPException) -> Response:
    """Return the answer that an error leaves the API as."""
    return _from_error(error) if isinstance(error, GranuleError) else _from_http(error)


def _from_error(error: GranuleError) -> Response:
    status, title = next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)
    fields: list[InvalidField] = []
    if isinstance(error, BodyInvalid):
        fields = error.invalid_fields
    elif error.field is not None:
        fields = [{"type": error.code, "field": error.field, "description": error.detail}]
    headers: dict[str, str] = {}
    retry_after_s = UNAVAILABLE_RETRY_AFTER_S if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, QueueFull | RateLimited):
        retry_after_s = error.retry_after_s
        headers["x-should-retry"] = "true"
    if isinstance(error, RateLimited):
        headers |= {"ratelimit-limit": str(error.limit), "ratelimit-remaining": "0", "ratelimit-reset": str(retry_after_s)}
    return _problem(status, title, error.detail, error.code, fields, headers, retry_after_s)


def _from_http(error: HTTPException) -> Response:
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    code, field = HTTP_PROBLEMS.get(
        status, ("internal_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "bad_request", None)
    )
    detail = _detail(error)
    fields: list[InvalidField] = [] if field is None else [{"type": code, "field": field, "description": detail}]
    own = ("content-type", "content-length")
    headers = {name: value for name, value in error.get_headers() if name.lower() not in own}
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        # Replicate's second Python client would send the same request twice more.
        headers["x-should-retry"] = "false"
    return _problem(status, error.name, detail, code, fields, headers)


def _detail(error: HTTPException) -> str:
    """Say what would be right where the library's own words do not."""
    if isinstance(error, RouteNotFound):
        return "nothing is served at this address; /docs lists all that is"
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        return f"this address answers {', '.join(sorted(error.valid_methods))}"
    return error.description or error.name


def _problem(
    status: int,
    title: str,
    detail: str,
    code: str,
    invalid_fields: Sequence[InvalidField],
    headers: Mapping[str, str],
    retry_after_s: int | None = None,
) -> Response:
    body: Problem = {
        "type": f"urn:granule:problem:{code}",
        "title": title,
        "status": int(status),
        "detail": detail,
        "code": code,
    }
    if invalid_fields:
        body["invalid_fields"] = list(invalid_fields)
    if retry_after_s is not None:
        body["retry_after"] = retry_after_s
        headers = {**headers, "Retry-After": str(retry_after_s)}
    return Response(compact_json(body), status=int(status), headers=headers, content_type=MEDIA_TYPE)
