"""Requests that are too large, sent to a real gunicorn: it is the API that refuses them, in the form of all its errors."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from shared.settings import Settings
from tests.integration.processes import api_server


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
