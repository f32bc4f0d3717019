"""Who is calling: a token names a tenant, and a tenant sees its own jobs only."""

from __future__ import annotations

import hmac
import logging
import os
import re
import threading
from ipaddress import ip_address
from pathlib import Path

from werkzeug.wrappers import Request

from api.tokens import NAME, Scope, Token, digest, read_tokens
from shared.errors import SettingsInvalid, Unauthenticated
from shared.settings import Settings

SCHEMES = ("bearer", "token")
LOCAL_NAME = "local"
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
FORWARDED = (
    *("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server", "X-Real-IP"),
    *("CF-Connecting-IP", "True-Client-IP"),
)

Known = list[tuple[bytes, Token]]

log = logging.getLogger(__name__)


class Tokens:
    """The tokens that are accepted, kept as digests. Without any, only callers on this machine are served.

    A file of tokens is read again whenever it changed, so that tokens come and go without a restart. A change that
    cannot be read is logged, and the tokens from before stay.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the `name:token` entries and the file.

        Raises:
            SettingsInvalid: one of them has another form, or there are none although the server is to be reached from afar.
        """
        if settings.public_url and not settings.api_tokens and settings.api_tokens_file is None:
            raise SettingsInvalid("GRANULE_PUBLIC_URL is set and there are no tokens: set GRANULE_API_TOKENS=name:token first")
        self._settings = settings
        self._listed = [_listed(entry.get_secret_value(), settings) for entry in settings.api_tokens]
        self._path = settings.api_tokens_file
        self._lock = threading.Lock()
        self._in_file: Known = []
        self._stamp: tuple[int, ...] | None = None
        if self._path is not None:
            # The stamp is taken first: a change while the file is read is then seen at the next request.
            self._stamp = _stamp(self._path)
            self._in_file = read_tokens(self._path, settings)

    def token_of(self, request: Request) -> Token:
        """Return the token that a request came with.

        Raises:
            Unauthenticated: no token or an unknown one; or no token is configured and the caller is not on this machine.
        """
        if not self._listed and self._path is None:
            return _local_token(request, self._settings)
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() not in SCHEMES or not given.strip():
            raise Unauthenticated("send a token: Authorization: Bearer <token>", field="Authorization")
        value = digest(given.strip())
        # Every entry is compared, so that the time it takes says nothing about which one was near.
        found = [token for known, token in self._listed + self._current() if hmac.compare_digest(value, known)]
        if not found:
            raise Unauthenticated("this token is not known here", field="Authorization")
        return found[0]

    def _current(self) -> Known:
        """Return the tokens of the file as it is now."""
        if self._path is None:
            return []
        with self._lock:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._in_file = read_tokens(self._path, self._settings)
                except SettingsInvalid as error:
                    log.error("the tokens from before stay: %s", error.detail)
            return self._in_file


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Return what changes whenever a file is written or replaced, or None when it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _listed(entry: str, settings: Settings) -> tuple[bytes, Token]:
    name, _, token = entry.partition(":")
    if not NAME.fullmatch(name) or not token:
        raise SettingsInvalid("GRANULE_API_TOKENS: each entry is name:token, the name of letters, digits, . _ and -")
    return digest(token), _token(name, settings)


def _token(name: str, settings: Settings, *further: Scope) -> Token:
    return Token(
        name=name,
        tenant=name,
        scopes=frozenset((Scope.READ, Scope.CREATE, *further)),
        max_waiting_jobs=settings.token_max_waiting_jobs,
        creates_per_minute=settings.token_creates_per_minute,
        max_candidates=settings.token_max_candidates,
    )


def is_local(request: Request) -> bool:
    """Tell whether a request was made on this machine.

    Not taken for one is what shows that a proxy, or a name that leads here, stands between: its headers, a foreign Host, or
    HTTP/1.0, which some proxies speak unless told otherwise. A proxy that hides itself altogether cannot be told from a local
    caller. Nor is a page from elsewhere that a browser on this machine shows: it may send a POST without a body unasked, and
    the browser says in Origin where the page is from.
    """
    peer = request.remote_addr or ""
    try:
        local = ip_address(peer).is_loopback
    except ValueError:
        local = False
    forwarded = any(name in request.headers for name in FORWARDED) or request.environ["SERVER_PROTOCOL"] == "HTTP/1.0"
    return local and not forwarded and _host_name(request.host) in LOCAL_HOSTS and _is_local_origin(request)


def _is_local_origin(request: Request) -> bool:
    origin = request.headers.get("Origin")
    return origin is None or _host_name(origin.partition("://")[2]) in LOCAL_HOSTS


def _local_token(request: Request, settings: Settings) -> Token:
    if is_local(request):
        return _token(LOCAL_NAME, settings, Scope.ADMIN)
    raise Unauthenticated(
        "this server has no tokens and serves its own machine only; set GRANULE_API_TOKENS=name:token or "
        "GRANULE_API_TOKENS_FILE",
        field="Authorization",
    )


def _host_name(host: str) -> str:
    name = host.rpartition(":")[0] if re.search(r":[0-9]+$", host) else host
    return name.strip("[]").lower()
