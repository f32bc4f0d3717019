"""The description at /openapi.json as a page for people, at /docs: no scripts, and nothing from anywhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, render_template, send_from_directory

from api.context import base_url
from api.openapi import document

blueprint = Blueprint("docs", __name__)

TEMPLATES = Path(__file__).parent / "templates"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@blueprint.get("/docs")
def get_docs() -> Response:
    """Read about this API."""
    found = document(current_app, base_url())
    page = render_template("docs.html", api=found, groups=_by_tag(found), kind=_kind, pretty=_pretty)
    return Response(page, content_type="text/html; charset=utf-8", headers=HEADERS)


@blueprint.get("/docs.css")
def get_style() -> Response:
    """Fetch how the page looks."""
    response = send_from_directory(TEMPLATES, "docs.css", mimetype="text/css")
    response.headers.update(HEADERS)
    return response


def _by_tag(found: dict[str, Any]) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """Return method, path and description of every operation, under the tag that it has, predictions first."""
    groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = {"predictions": []}
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    return groups


def _kind(schema: dict[str, Any]) -> str:
    """Name a schema's type in one word or a few; the name of another schema where it refers to one."""
    options = schema.get("anyOf") or schema.get("allOf")
    if "$ref" in schema:
        named = str(schema["$ref"]).rpartition("/")[2]
    elif options:
        named = " or ".join(_kind(option) for option in options)
    elif "enum" in schema:
        named = ", ".join(json.dumps(value) for value in schema["enum"])
    elif schema.get("type") == "array":
        named = f"list of {_kind(schema.get('items', {}))}"
    else:
        named = str(schema.get("format") or schema.get("type") or "anything")
    return f"{named} or null" if schema.get("nullable") else named


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
