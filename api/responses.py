"""How answers are written: the same compact JSON that webhooks carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response

from shared.wire import compact_json


def json_response(
    body: Mapping[str, Any] | Sequence[Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON that no cache may keep: it is one caller's, and it changes."""
    response = Response(compact_json(body), status=status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers.update(headers or {})
    return response


def page(results: Sequence[Any], *, next_url: str | None = None, previous_url: str | None = None) -> dict[str, Any]:
    """Wrap a list as Replicate does. The addresses must be absolute: two official clients get relative ones wrong."""
    return {"previous": previous_url, "next": next_url, "results": list(results)}
