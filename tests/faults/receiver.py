"""A webhook receiver: a real HTTP server that answers as it is told and notes what it got and what it said."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.faults.history import Told


class Receiver:
    """Listens on loopback. `status` is what it answers, after `delay_s`; `on_post` is called with each message before that."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.headers_got: list[dict[str, str]] = []
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.reset()

    @property
    def url(self) -> str:
        """Where it listens, also while it is down."""
        return f"http://127.0.0.1:{self._port}/hook"

    def reset(self) -> None:
        """Listen, and answer 200 at once."""
        self.status, self.delay_s = 200, 0.0
        self.headers: dict[str, str] = {}
        self.on_post: Callable[[Told], None] | None = None
        if self._server is None:
            self.up()

    def up(self) -> None:
        """Listen, on the same port as before."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def down(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def about(self, job_id: str) -> list[Told]:
        """What it got about a job."""
        return [told for told in list(self.told) if told.job_id == job_id]

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        prediction = json.loads(body)
        digest = hashlib.sha256(body).hexdigest()
        status = self.status
        told = Told(handler.headers["webhook-id"], prediction["id"], prediction["status"], digest, status)
        self.headers_got.append({name.lower(): value for name, value in handler.headers.items()})
        self.told.append(told)
        if self.on_post is not None:
            self.on_post(told)
        time.sleep(self.delay_s)
        handler.send_response(status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
