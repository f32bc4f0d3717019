"""A TCP proxy on loopback that stands between Granule's processes and a server, and spoils the traffic when told to."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from enum import Enum

from shared.redis_client import LUA

CHUNK_BYTES = 65_536


class Mode(Enum):
    """What becomes of a new connection."""

    FORWARD = "forward"
    REFUSE = "refuse"
    """It is reset at once."""
    SWALLOW = "swallow"
    """It is accepted, and never answered: a peer that is silently gone."""
    ANSWER_503 = "answer 503"
    """Whatever is asked over HTTP, the answer is 503."""


UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: 75\r\n\r\n"
    b"<Error><Code>ServiceUnavailable</Code><Message>Spoiled.</Message></Error>  "
)


def script_sha(script: str) -> bytes:
    """What a call of one of the job store's scripts carries, and nothing else does."""
    source = "".join((LUA / f"{part}.lua").read_text(encoding="utf-8") for part in ("prelude", script))
    return hashlib.sha1(source.encode()).hexdigest().encode()


class Link:
    """One client's connection and its own one to the server."""

    def __init__(self, client: socket.socket, server: socket.socket | None) -> None:
        self.client = client
        self.server = server
        self.swallowed = server is None
        self.loses_reply = False

    def close(self) -> None:
        """End both connections, the client's with a reset."""
        for side in (self.client, self.server):
            if side is not None:
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
                side.close()


class Proxy:
    """Forwards to a port of this machine. `mode` concerns new connections; the other methods those that are open."""

    def __init__(self, target_port: int) -> None:
        self.mode = Mode.FORWARD
        self.lost_replies = 0
        self._target_port = target_port
        self._links: set[Link] = set()
        self._lock = threading.Lock()
        self._markers: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def set_mode(self, mode: Mode) -> None:
        """Change what becomes of new connections, and end the open ones so that it counts at once."""
        self.mode = mode
        self.cut()

    def cut(self) -> None:
        """End every open connection."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()

    def swallow_open(self) -> None:
        """From now on nothing passes through the connections that are open; new ones work."""
        with self._lock:
            for link in self._links:
                link.swallowed = True

    def lose_reply_to(self, marker: bytes) -> None:
        """Let the next request that contains `marker` through, and end its connection in place of its reply."""
        with self._lock:
            self._markers.append(marker)

    def close(self) -> None:
        """Stop listening and end every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server: socket.socket | None = None
        try:
            if self.mode is Mode.REFUSE:
                return client.close()
            if self.mode is Mode.ANSWER_503:
                return _refuse_politely(client)
            if self.mode is Mode.FORWARD:
                server = socket.create_connection(("127.0.0.1", self._target_port))
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            return client.close()
        link = Link(client, server)
        with self._lock:
            self._links.add(link)
        if server is not None:
            threading.Thread(target=self._pump_replies, args=(link, server), daemon=True).start()
        self._pump_requests(link)

    def _pump_requests(self, link: Link) -> None:
        with contextlib.suppress(OSError):
            while data := link.client.recv(CHUNK_BYTES):
                if self._takes(data):
                    link.loses_reply = True
                if link.server is not None and not link.swallowed:
                    link.server.sendall(data)
        self._end(link)

    def _pump_replies(self, link: Link, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(CHUNK_BYTES):
                if link.loses_reply:
                    self.lost_replies += 1
                    break
                if not link.swallowed:
                    link.client.sendall(data)
            else:
                if link.swallowed:
                    return
        self._end(link)

    def _takes(self, data: bytes) -> bool:
        with self._lock:
            for marker in self._markers:
                if marker in data:
                    self._markers.remove(marker)
                    return True
        return False

    def _end(self, link: Link) -> None:
        link.close()
        with self._lock:
            self._links.discard(link)


def _refuse_politely(client: socket.socket) -> None:
    with client:
        client.settimeout(5)
        seen = b""
        while b"\r\n\r\n" not in seen:
            data = client.recv(CHUNK_BYTES)
            if not data:
                return
            seen += data
        client.sendall(UNAVAILABLE)
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while client.recv(CHUNK_BYTES):
                pass  # closing with unread bytes would reset the connection before the answer is read
