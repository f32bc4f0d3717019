"""One request out of the house, to an address that a caller chose.

The name is resolved once. Every address that it means must be public, or nothing is connected to; the connection then goes to
one of the addresses that were checked, so that a name which changes its meaning in between gains nothing. Redirects are not
followed, proxies of the environment are not asked, and the whole of it, from the name to the last byte, ends in time.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

import certifi

from shared.errors import GranuleError
from shared.webhooks import is_public_address

CONNECT_TIMEOUT_S = 3.0
ANSWER_MAX_BYTES = 4096
"""How much of an answer's body is read. Nothing is done with it, but some servers stop working when nobody listens."""

SocketAddress = tuple[socket.AddressFamily, Any]


class NoAnswer(GranuleError):
    """The receiver was not reached, or did not answer in time. `detail` says no address: what a name means is not told."""

    code = "no_answer"
    retryable = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the HTTP status and the value of `Retry-After`, "" when there was none."""

    status: int
    retry_after: str


def post(url: str, body: bytes, headers: dict[str, str], *, timeout_s: float, public_only: bool) -> Answer:
    """Send one POST to an address that `shared.webhooks.check_url` let pass. All of it takes at most `timeout_s` seconds.

    With `public_only` the host may mean public addresses only.

    Raises:
        NoAnswer: there is no answer, for whatever reason.
    """
    deadline_s = time.monotonic() + timeout_s
    parts = urlsplit(url)
    try:
        sock = _connect(_resolve(parts, timeout_s, public_only), deadline_s)
        with closing(sock):
            secured = _secure(sock, parts, deadline_s) if parts.scheme == "https" else sock
            with closing(secured):
                return _exchange(secured, parts, body, headers, deadline_s)
    except ssl.SSLCertVerificationError as error:
        raise NoAnswer(f"the certificate is not trusted: {error.verify_message}") from error
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, TimeoutError) or time.monotonic() >= deadline_s:
            raise NoAnswer("no answer in time") from error
        raise NoAnswer(f"no answer: {type(error).__name__}") from error


def _resolve(parts: SplitResult, timeout_s: float, public_only: bool) -> list[SocketAddress]:
    """Find out what the host means. The resolver knows no time-out of its own, so it is asked from a thread."""
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    found: Future[list[SocketAddress]] = Future()

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.set_result([(family, address) for family, _, _, _, address in answers])
        except (OSError, UnicodeError) as error:
            found.set_exception(error)

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    addresses = found.result(timeout_s)
    if public_only and not all(is_public_address(ip_address(address[0])) for _, address in addresses):
        raise NoAnswer("the host has an address that is not public")
    return addresses


def _connect(addresses: list[SocketAddress], deadline_s: float) -> socket.socket:
    """Connect to the first of the addresses that lets us."""
    failure = OSError("the host has no address")
    for family, address in addresses:
        limit_s = min(CONNECT_TIMEOUT_S, _left_s(deadline_s))
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(limit_s)
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
            continue
        return sock
    raise failure


def _secure(sock: socket.socket, parts: SplitResult, deadline_s: float) -> ssl.SSLSocket:
    sock.settimeout(_left_s(deadline_s))
    return _tls().wrap_socket(sock, server_hostname=(parts.hostname or "").removesuffix("."))


@cache
def _tls() -> ssl.SSLContext:
    """Trust what this machine trusts (`SSL_CERT_FILE` adds a house's own authority) and the public authorities."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _exchange(sock: socket.socket, parts: SplitResult, body: bytes, headers: dict[str, str], deadline_s: float) -> Answer:
    """Send the request and read the answer's head. A socket's own time-out starts anew with every byte, hence the timer."""
    sock.settimeout(_left_s(deadline_s))
    # Not through SSLSocket.shutdown, which takes the session away from under the thread that reads.
    timer = threading.Timer(_left_s(deadline_s), lambda: _cut(sock))
    timer.start()
    try:
        connection = HTTPConnection(parts.hostname or "", parts.port)
        connection.sock, connection.auto_open = sock, 0
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, headers | {"Host": parts.netloc})
        with connection.getresponse() as response:
            # Cut off in the middle of its head, an answer looks complete.
            _left_s(deadline_s)
            _read_politely(response)
            return Answer(response.status, response.getheader("Retry-After", ""))
    finally:
        timer.cancel()


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _read_politely(response: HTTPResponse) -> None:
    with suppress(OSError, HTTPException, ValueError):
        response.read(ANSWER_MAX_BYTES)


def _left_s(deadline_s: float) -> float:
    """Return the seconds that are left. Raises TimeoutError when none are."""
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
