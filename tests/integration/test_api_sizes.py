"""Requests that are too large, sent to a real gunicorn: it is the API that refuses them, in the form of all its errors."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from infra.local.ports import free_block
from shared.settings import Settings
from tests.integration.processes import api_server, environment, wait_until


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with api_server(Settings(), tmp_path_factory.mktemp("gunicorn"), GRANULE_API_TOKENS="shop:shop-token") as address:
        yield address


def in_pieces(size_bytes: int) -> Iterator[bytes]:
    """A body whose length is not announced."""
    for _ in range(size_bytes // 1_000):
        yield b" " * 1_000


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"url": "/healthz", "headers": {"X-Large": "a" * 20_000}}, 431),
        ({"url": "/healthz", "headers": {f"X-{number}": "a" * 300 for number in range(60)}}, 431),
        ({"url": f"/v1/predictions?cursor={'a' * 4_000}"}, 414),
        ({"method": "POST", "url": "/v1/predictions", "content": b" " * 70_000}, 413),
        ({"method": "POST", "url": "/v1/predictions", "content": in_pieces(70_000)}, 413),
    ],
)
def test_what_is_too_large_is_refused_as_a_problem(base_url: str, request_: dict[str, object], status: int) -> None:
    headers = {"Authorization": "Bearer shop-token", "Content-Type": "application/json"}
    with httpx.Client(base_url=base_url, headers=headers) as client:
        refused = client.request(**({"method": "GET"} | request_))
    assert (refused.status_code, refused.headers["Content-Type"]) == (status, "application/problem+json")
    assert refused.json()["invalid_fields"][0]["field"] in ("headers", "url", "body")


@pytest.mark.parametrize(
    ("sent", "status", "field"),
    [
        (f"GET /{'a' * 5_000} HTTP/1.1\r\nHost: x\r\n\r\n", 414, "url"),
        (f"GET / HTTP/1.1\r\nX-Large: {'a' * 40_000}\r\n\r\n", 431, "headers"),
        ("GET / HTTP/1.1\r\n" + "X-Small: a\r\n" * 200 + "\r\n", 431, "headers"),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "headers"),
        ("GET / HTTP/1.1\r\nX-A: a\r\n b\r\n\r\n", 400, "headers"),
        ("nonsense\r\n\r\n", 400, "request"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: twofold\r\n\r\n", 501, "Transfer-Encoding"),
    ],
)
def test_what_the_server_cannot_read_is_refused_as_a_problem_too(base_url: str, sent: str, status: int, field: str) -> None:
    address = urlsplit(base_url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
        connection.sendall(sent.encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65_536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Content-Type: application/problem+json" in head and b"X-Request-Id: " in head
    problem = json.loads(body)
    assert (problem["status"], problem["invalid_fields"][0]["field"], bool(problem["title"])) == (status, field, True)
    assert problem["detail"]


def test_callers_who_stall_give_their_threads_back(tmp_path: Path) -> None:
    start = "import api.gateway as g; g.STALL_LIMIT_S = 1; from gunicorn.app.wsgiapp import run; run()"
    port = free_block(1)[0]
    options = ["--config", "python:api.serving", "--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", "2"]
    with ExitStack() as stack, (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-c", start, *options, "api.server:create_app()"]
        process = stack.enter_context(subprocess.Popen(command, env=environment(Settings()), stdout=log, stderr=log))
        stack.callback(process.terminate)

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=10).status_code == 200
            except httpx.ConnectError:
                return False

        wait_until(answers)
        for half in (b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"P", b"GET / HTTP/1.1\r\n"):
            stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(half)
        assert answers()
