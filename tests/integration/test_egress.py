"""Requests to real sockets on loopback: what must be reached is, what must not be never is, and nothing takes too long."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from worker import egress
from worker.egress import NoAnswer, post

CERTIFICATE = Path(__file__).parent / "shop.example.com.pem"
"""Made for these tests: shop.example.com, signed by itself, with its key."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
Address = tuple[str, int]


class Peer:
    """A server whose every connection is handed to `talk`; it counts them and keeps the first bytes that each one sent."""

    def __init__(self, talk: Callable[[socket.socket], None], address: Address = ("127.0.0.1", 0)) -> None:
        self.connections = 0
        self.heard: list[bytes] = []
        self._talk = talk
        self._server = socket.create_server(address)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                self.connections += 1
                threading.Thread(target=self._handle, args=(sock,), daemon=True).start()

    def _handle(self, sock: socket.socket) -> None:
        with suppress(OSError), sock:
            self.heard.append(sock.recv(65_536))
            self._talk(sock)

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    peers: list[Peer] = []

    def start(talk: Callable[[socket.socket], None] = lambda sock: sock.sendall(OK), **options: Address) -> Peer:
        peers.append(Peer(talk, **options))
        return peers[-1]

    yield start
    for each in peers:
        each.close()


def means(monkeypatch: pytest.MonkeyPatch, *lookups: list[Address]) -> list[str]:
    """Let shop.example.com mean one list of addresses after the other; return the log of lookups."""
    resolve, log = socket.getaddrinfo, []

    def answer(host: str, *args: object, **options: object) -> object:
        if host != "shop.example.com":
            return resolve(host, *args, **options)  # type: ignore[arg-type]
        log.append(host)
        addresses = lookups[min(len(log), len(lookups)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return log


def send(url: str, *, timeout_s: float = 5.0, public_only: bool = False) -> egress.Answer:
    return post(url, b"{}", {"Content-Type": "application/json"}, timeout_s=timeout_s, public_only=public_only)


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST", "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001",
        "0177.0.0.1", "0", "0.0.0.0", "127.255.255.254", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    ],
)  # fmt: skip
def test_no_spelling_of_this_machine_is_connected_to(host: str, peer: Callable[..., Peer]) -> None:
    canary = peer()
    with pytest.raises(NoAnswer):
        send(f"http://{host}:{canary.port}/", public_only=True)
    assert canary.connections == 0


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "0"])
def test_the_same_spellings_reach_it_when_nothing_is_checked(host: str, peer: Callable[..., Peer]) -> None:
    canary = peer()
    assert send(f"http://{host}:{canary.port}/").status == 200
    assert canary.connections == 1


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_one_private_address_among_public_ones_is_enough(
    order: slice, peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = peer()
    means(monkeypatch, [("127.0.0.1", canary.port), ("93.184.215.14", 443)][order])
    with pytest.raises(NoAnswer, match="not public"):
        send("https://shop.example.com/", public_only=True)
    assert canary.connections == 0


def test_a_name_that_changes_its_meaning_is_connected_to_where_it_was_checked(
    peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = peer()
    canary = peer(address=("127.0.0.2", checked.port))
    log = means(monkeypatch, [("127.0.0.1", checked.port)], [("127.0.0.2", checked.port)])

    def is_the_checked_one(address: IPv4Address | IPv6Address) -> bool:
        return str(address) == "127.0.0.1"

    monkeypatch.setattr(egress, "is_public_address", is_the_checked_one)
    assert send(f"http://shop.example.com:{checked.port}/", public_only=True).status == 200
    assert (checked.connections, canary.connections, len(log)) == (1, 0, 1)
    assert f"Host: shop.example.com:{checked.port}\r\n".encode() in checked.heard[0]


def test_the_next_address_is_taken_when_the_first_refuses(peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = peer()
    means(monkeypatch, [("127.0.0.3", receiver.port), ("127.0.0.1", receiver.port)])
    assert send(f"http://shop.example.com:{receiver.port}/").status == 200


def test_proxies_of_the_environment_are_not_asked(peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, proxy = peer(), peer()
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert send(f"http://127.0.0.1:{receiver.port}/").status == 200
    assert (receiver.connections, proxy.connections) == (1, 0)


def test_a_redirect_is_an_answer_and_not_an_order(peer: Callable[..., Peer]) -> None:
    canary = peer()
    moved = b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % canary.port
    receiver = peer(lambda sock: sock.sendall(moved))
    assert send(f"http://127.0.0.1:{receiver.port}/").status == 307
    assert canary.connections == 0


# -- nothing takes longer than it may


def drip(start: bytes, forever: bytes) -> Callable[[socket.socket], None]:
    def talk(sock: socket.socket) -> None:
        sock.sendall(start)
        while True:
            sock.sendall(forever)
            time.sleep(0.05)

    return talk


@pytest.mark.parametrize(
    "talk",
    [
        lambda sock: time.sleep(30),
        drip(b"HTTP/1.1 2", b"0"),
        drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
        drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["silence", "status", "headers", "continue"],
)
def test_an_answer_whose_head_never_ends_is_cut_off(talk: Callable[[socket.socket], None], peer: Callable[..., Peer]) -> None:
    receiver = peer(talk)
    started_s = time.monotonic()
    with pytest.raises(NoAnswer, match="in time"):
        send(f"http://127.0.0.1:{receiver.port}/", timeout_s=0.5)
    assert 0.4 < time.monotonic() - started_s < 3


def test_a_body_that_drips_changes_neither_the_answer_nor_the_time(peer: Callable[..., Peer]) -> None:
    receiver = peer(drip(b"HTTP/1.1 204 Fine\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"))
    bounded = peer(drip(b"HTTP/1.1 200 Fine\r\nContent-Length: 9999\r\n\r\n", b"a"))
    started_s = time.monotonic()
    assert send(f"http://127.0.0.1:{receiver.port}/", timeout_s=0.5).status == 204
    assert send(f"http://127.0.0.1:{bounded.port}/", timeout_s=0.5).status == 200
    assert time.monotonic() - started_s < 3


def test_a_huge_body_is_not_read(peer: Callable[..., Peer]) -> None:
    sent = 0

    def flood(sock: socket.socket) -> None:
        nonlocal sent
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(1000):
            sock.sendall(bytes(1_000_000))
            sent += 1

    receiver = peer(flood)
    assert send(f"http://127.0.0.1:{receiver.port}/").status == 200
    assert sent < 100


def test_a_resolver_that_hangs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: time.sleep(3) or [])
    started_s = time.monotonic()
    with pytest.raises(NoAnswer, match="in time"):
        send("http://shop.example.com/", timeout_s=0.3)
    assert time.monotonic() - started_s < 2


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-server\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 70_000])
def test_what_is_not_http_is_no_answer(answer: bytes, peer: Callable[..., Peer]) -> None:
    receiver = peer(lambda sock: sock.sendall(answer))
    with pytest.raises(NoAnswer):
        send(f"http://127.0.0.1:{receiver.port}/")


# -- https


@pytest.fixture
def secure_peer(peer: Callable[..., Peer]) -> Iterator[Callable[[], tuple[Peer, list[str | None]]]]:
    def start() -> tuple[Peer, list[str | None]]:
        names: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        context.sni_callback = lambda sock, name, _: names.append(name)
        server = Peer(lambda sock: None)
        server._handle = handle(server, context)  # type: ignore[method-assign]
        started.append(server)
        return server, names

    def handle(server: Peer, context: ssl.SSLContext) -> Callable[[socket.socket], None]:
        def talk(sock: socket.socket) -> None:
            with suppress(OSError), context.wrap_socket(sock, server_side=True) as secured:
                server.heard.append(secured.recv(65_536))
                secured.sendall(OK)

        return talk

    started: list[Peer] = []
    egress._tls.cache_clear()
    yield start
    egress._tls.cache_clear()
    for each in started:
        each.close()


def test_the_certificate_is_the_names_and_not_the_addresses(
    secure_peer: Callable[[], tuple[Peer, list[str | None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    receiver, names = secure_peer()
    means(monkeypatch, [("127.0.0.1", receiver.port)])
    assert send(f"https://shop.example.com:{receiver.port}/hook?order=1").status == 200
    assert names == ["shop.example.com"]
    assert receiver.heard[0].startswith(b"POST /hook?order=1 HTTP/1.1\r\n")
    with pytest.raises(NoAnswer, match="not trusted"):
        send(f"https://127.0.0.1:{receiver.port}/")


def test_a_certificate_that_nobody_vouches_for_is_refused(
    secure_peer: Callable[[], tuple[Peer, list[str | None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, _ = secure_peer()
    means(monkeypatch, [("127.0.0.1", receiver.port)])
    with pytest.raises(NoAnswer, match="not trusted"):
        send(f"https://shop.example.com:{receiver.port}/")
    assert receiver.heard == []


def test_time_that_is_up_before_the_connection_leaves_no_socket_open() -> None:
    """A socket that nobody closes is an error here as soon as it is collected."""
    with pytest.raises(TimeoutError):
        egress._connect([(socket.AF_INET, ("127.0.0.1", 9))], time.monotonic() - 1)
    gc.collect()
