"""What a probe hears at the metrics port of a drained worker, which has no process to answer there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

log = logging.getLogger(__name__)


class _Drained(BaseHTTPRequestHandler):
    timeout = 10
    """Seconds after which a caller who says nothing is cut off."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"drained\n")

    def log_message(self, *_: object) -> None:
        """Probes come every few seconds; the log is for what happens."""


@contextmanager
def answering_as_drained(host: str, port: int) -> Iterator[None]:
    """Answer every GET with 503 while the block runs: alive, and not ready. Port 0: there is nothing to answer at.

    A port that is taken costs these answers, nothing else.
    """
    if not port:
        yield
        return
    try:
        server = ThreadingHTTPServer((host, port), _Drained)
    except OSError as error:
        log.error("probes get no answer on %s:%d: %s", host, port, error)
        yield
        return
    threading.Thread(target=server.serve_forever, name="drained", daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
