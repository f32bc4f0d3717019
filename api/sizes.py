"""Bounds on the size of a request, looked at before anything else is done with it."""

from __future__ import annotations

from werkzeug.exceptions import RequestEntityTooLarge, RequestHeaderFieldsTooLarge, RequestURITooLarge
from werkzeug.wrappers import Request

URL_MAX_CHARACTERS = 4_000
"""Of path and query together; gunicorn gives up at 4,094 for the whole first line."""


def check_sizes(request: Request, *, body_max_bytes: int, header_max_bytes: int) -> None:
    """Look at the sizes that a request announces. A body without an announced length is measured when it is read.

    Raises:
        RequestURITooLarge: path and query are too long.
        RequestHeaderFieldsTooLarge: names and values of all headers together are too long.
        RequestEntityTooLarge: the body is too long, whether or not anybody would read it.
    """
    if len(request.full_path) > URL_MAX_CHARACTERS:
        raise RequestURITooLarge(f"path and query are at most {URL_MAX_CHARACTERS} characters")
    sizes = {name: len(name) + len(value) for name, value in request.headers.items()}
    if sum(sizes.values()) > header_max_bytes:
        largest = max(sizes, key=lambda name: sizes[name])
        raise RequestHeaderFieldsTooLarge(
            f"headers are at most {header_max_bytes} bytes together; the largest here is {largest} with {sizes[largest]}"
        )
    if (request.content_length or 0) > body_max_bytes:
        raise RequestEntityTooLarge(f"the body is at most {body_max_bytes} bytes")
