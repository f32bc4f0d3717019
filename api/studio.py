"""The Studio: the page at `/`, the operators' page at `/ops`, and what they load, out of the folder `web/`.

Both pages hold no data: what they show they ask the API for, with the token that their reader gives them. Scripts and
styles have an address that changes with their content, so that browsers keep them for a year and never mix two releases.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from flask import Blueprint, Response, request

from api.context import context
from shared.errors import NotFound
from shared.settings import REPOSITORY, Settings

WEB = REPOSITORY / "web"
ASSETS_MARK = "%ASSETS%"
"""Stands in the pages for the folder that scripts and styles are fetched from."""

KEPT = "public, max-age=31536000, immutable"
GZIP_MIN_BYTES = 500

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:{further}; "
    "connect-src 'self'{further}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)

blueprint = Blueprint("studio", __name__)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent: plain and, where that pays, compressed."""

    content: bytes
    compressed: bytes | None
    content_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class Site:
    """All files of a folder by their path in it, and a digest of them all. HTML carries the digest in its links."""

    digest: str
    assets: dict[str, Asset]


@blueprint.get("/")
def get_studio() -> Response:
    """Order, watch and judge tiles in a browser."""
    return _page("studio.html")


@blueprint.get("/ops")
def get_ops() -> Response:
    """See in a browser whether all is well."""
    return _page("ops.html")


@blueprint.get("/assets/<digest>/<path:file>")
def get_asset(digest: str, file: str) -> Response:
    """Fetch a script, a style or a picture of the pages."""
    asset = site().assets.get(file)
    if asset is None or file.endswith(".html"):
        raise NotFound("no such file")
    # During an upgrade a page of one release may ask a server of the other: it is answered, but nothing keeps that.
    return _send(asset, KEPT if digest == site().digest else "no-store")


@cache
def site(folder: Path = WEB) -> Site:
    """Read the folder, once."""
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    digest = hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()[:16]
    mark = f"assets/{digest}".encode()
    return Site(digest, {name: _asset(name, content.replace(ASSETS_MARK.encode(), mark)) for name, content in contents.items()})


def _asset(name: str, content: bytes) -> Asset:
    kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0] or "application/octet-stream"
    content_type = f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
    compressed = gzip.compress(content, mtime=0) if len(content) >= GZIP_MIN_BYTES else None
    return Asset(content, compressed, content_type, hashlib.sha256(content).hexdigest()[:32])


def _page(name: str) -> Response:
    response = _send(site().assets[name], "no-cache")
    further = "".join(f" {origin}" for origin in _picture_origins(context().settings))
    response.headers["Content-Security-Policy"] = POLICY.format(further=further)
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return response


def _send(asset: Asset, cache_control: str) -> Response:
    packed = asset.compressed if asset.compressed and request.accept_encodings["gzip"] > 0 else None
    response = Response(packed or asset.content, content_type=asset.content_type)
    response.headers["Cache-Control"] = cache_control
    response.headers["Vary"] = "Accept-Encoding"
    response.headers["X-Content-Type-Options"] = "nosniff"
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    response.set_etag(f"{asset.etag}{'-gzip' if packed else ''}")
    response.make_conditional(request)
    return response


def _picture_origins(settings: Settings) -> list[str]:
    """List where pictures may come from besides the page's own origin: from the public address, or from the storage."""
    origins = []
    if settings.public_url is not None:
        public = urlsplit(settings.public_url)
        origins.append(f"{public.scheme}://{public.netloc}")
    if settings.s3_redirect_url is not None:
        storage = urlsplit(settings.s3_redirect_url)
        hosts = {"path": [""], "virtual": [f"{settings.s3_bucket}."], "auto": ["", f"{settings.s3_bucket}."]}
        origins += [f"{storage.scheme}://{host}{storage.netloc}" for host in hosts[settings.s3_addressing_style]]
    return origins
