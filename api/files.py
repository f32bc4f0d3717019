"""Finished pictures, streamed from storage. The address itself is the permission: it holds an unguessable token."""

from __future__ import annotations

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotImplemented as NotOffered
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import quote_etag

from api.context import context
from shared.errors import Gone, NotFound
from shared.jobs import Output
from shared.storage import CACHE_CONTROL, StoredObject

blueprint = Blueprint("files", __name__)

CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Content-Disposition, Content-Length, Content-Range, ETag",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Range, If-None-Match, If-Range",
    "Access-Control-Max-Age": "86400",
}


@blueprint.get("/<token>/<filename>", provide_automatic_options=False)
def get_file(token: str, filename: str) -> Response:
    """Fetch a picture, or a part of it. A token in the request is neither needed nor looked at.

    Where the operator lets the storage send pictures, the answer is a redirect to an address there that holds for five minutes.
    """
    output = _find(token, filename)
    etag = quote_etag(output.sha256)
    if request.if_none_match.contains_weak(output.sha256):
        return Response(status=304, headers=_headers(output, etag))
    address = _elsewhere(output)
    if address is not None:
        return Response(status=302, headers=_headers(output, etag) | {"Location": address, "Cache-Control": "no-store"})
    part = None if request.method == "HEAD" else _wanted_part(output, etag)
    with context().reads.one():
        stored = _stored(output, part)
    response = Response(stored.chunks(), status=206 if part else 200, headers=_headers(output, etag))
    response.content_length = stored.size_bytes
    if part:
        response.headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{output.size_bytes}"
    return response


@blueprint.route("/<token>/<filename>", methods=["OPTIONS"])
def preflight_file(token: str, filename: str) -> Response:
    """Tell a browser that a page of any origin may fetch pictures."""
    return Response(status=204, headers=CORS | PREFLIGHT)


@blueprint.route("", methods=["GET", "POST"])
def refuse_uploads() -> Response:
    """Say that inputs are not uploaded here; clients then send them inside the body."""
    raise NotOffered("this server takes no uploads: a prediction's input is text and numbers")


@blueprint.route("/<file_id>", methods=["GET", "DELETE"])
def refuse_upload(file_id: str) -> Response:
    """Say that there is no such upload, as there is none at all."""
    return refuse_uploads()


def _find(token: str, filename: str) -> Output:
    job = context().store.by_file_token(token)
    if job.data_removed:
        raise Gone("this picture was removed")
    for output in job.result.outputs if job.result else []:
        if output.filename == filename:
            return output
    raise NotFound("no such file", field="token")


def _elsewhere(output: Output) -> str | None:
    """Return where the picture is to be fetched, if not here. A HEAD is always answered here: only GET is signed for."""
    if request.method == "HEAD":
        return None
    disposition = _disposition(output)
    return context().storage.signed_url(output.key, content_type=output.content_type, content_disposition=disposition)


def _disposition(output: Output) -> str:
    return f'inline; filename="{output.filename}"'


def _wanted_part(output: Output, etag: str) -> tuple[int, int] | None:
    """Return first and last byte (exclusive) of the one range asked for; None: send everything, as for several ranges."""
    if "Range" not in request.headers or request.headers.get("If-Range", etag) != etag:
        return None
    wanted = request.range
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1:
        return None
    part = wanted.range_for_length(output.size_bytes)
    if part is None or part[0] is None or part[1] is None:
        raise RequestedRangeNotSatisfiable(length=output.size_bytes)
    return part[0], part[1]


def _stored(output: Output, part: tuple[int, int] | None) -> StoredObject:
    storage = context().storage
    if request.method == "HEAD":
        return storage.head(output.key)
    return storage.open(output.key, byte_range=f"bytes={part[0]}-{part[1] - 1}" if part else None)


def _headers(output: Output, etag: str) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Cache-Control": CACHE_CONTROL,
        "Content-Disposition": _disposition(output),
        "Content-Type": output.content_type,
        "ETag": etag,
        "X-Content-Type-Options": "nosniff",
    } | CORS
