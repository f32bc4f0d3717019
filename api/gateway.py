"""Requests that gunicorn itself gives up on, before the application sees them: answered as problems, like all others.

`--worker-class api.gateway.ProblemWorker` is gunicorn's own `gthread` but for that, and for callers who stall.
"""

from __future__ import annotations

import secrets
import socket
import struct
from http import HTTPStatus

from gunicorn.http.errors import (
    ExpectationFailed,
    InvalidHeader,
    InvalidHeaderName,
    InvalidRequestMethod,
    LimitRequestHeaders,
    LimitRequestLine,
    ObsoleteFolding,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.http.message import Request
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import TConn, ThreadWorker

from api.problems import MEDIA_TYPE, Problem
from api.server import REQUEST_ID_HEADER
from shared.wire import compact_json

CAUSES: dict[type[Exception], tuple[HTTPStatus, str, str]] = {
    LimitRequestLine: (HTTPStatus.REQUEST_URI_TOO_LONG, "url_too_long", "url"),
    LimitRequestHeaders: (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "headers"),
    InvalidHeader: (HTTPStatus.BAD_REQUEST, "bad_request", "headers"),
    InvalidHeaderName: (HTTPStatus.BAD_REQUEST, "bad_request", "headers"),
    ObsoleteFolding: (HTTPStatus.BAD_REQUEST, "bad_request", "headers"),
    InvalidRequestMethod: (HTTPStatus.BAD_REQUEST, "bad_request", "method"),
    ExpectationFailed: (HTTPStatus.EXPECTATION_FAILED, "bad_request", "Expect"),
    UnsupportedTransferCoding: (HTTPStatus.NOT_IMPLEMENTED, "not_implemented", "Transfer-Encoding"),
    ParseException: (HTTPStatus.BAD_REQUEST, "bad_request", "request"),
}
"""Status, code and field of what cannot be read; a class that is not listed has its parent's."""


STALL_LIMIT_S = 30
"""A caller who for so long neither sends the rest of a request nor takes any of an answer is cut off: it holds a thread."""


class ProblemWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no annotations
    """Serves requests on threads, and refuses those that cannot be read with `application/problem+json`."""

    def enqueue_req(self, conn: TConn) -> None:
        """Give a connection to a thread. Gunicorn itself would let half a request keep that thread for ever."""
        # Limits of the system's own: gunicorn sets the socket to blocking once more, which takes Python's away.
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            conn.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", STALL_LIMIT_S, 0))
        super().enqueue_req(conn)

    def handle_error(self, req: Request | None, client: socket.socket, addr: tuple[str, int] | None, exc: Exception) -> None:
        """Answer a request that could not be read, and leave everything else to gunicorn. The connection ends with it."""
        cause = next((CAUSES[kind] for kind in type(exc).__mro__ if kind in CAUSES), None)
        if cause is None:
            super().handle_error(req, client, addr, exc)
            return
        self.log.warning("invalid request from %s: %s", addr[0] if addr else "a local socket", exc)
        try:
            write_nonblock(client, _answer(*cause, str(exc)))
        except OSError as error:
            self.log.debug("the caller left before the answer: %s", error)


def _answer(status: HTTPStatus, code: str, field: str, detail: str) -> bytes:
    problem: Problem = {
        "type": f"urn:granule:problem:{code}",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "code": code,
        "invalid_fields": [{"type": code, "field": field, "description": detail}],
    }
    body = compact_json(problem)
    headers = {
        "Connection": "close",
        "Content-Type": MEDIA_TYPE,
        "Content-Length": len(body),
        REQUEST_ID_HEADER: secrets.token_hex(8),
    }
    lines = [f"HTTP/1.1 {status} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body
