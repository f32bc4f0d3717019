"""Who is calling: a token names a tenant, and a tenant sees its own jobs only."""

from __future__ import annotations

import hashlib
import hmac
import re
from ipaddress import ip_address

from werkzeug.wrappers import Request

from shared.errors import SettingsInvalid, Unauthenticated
from shared.settings import Settings

SCHEMES = ("bearer", "token")
LOCAL_TENANT = "local"
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")


class Tokens:
    """The tokens that are accepted, kept as digests. Without any, only callers on this machine are served."""

    def __init__(self, settings: Settings) -> None:
        """Read the `name:token` entries.

        Raises:
            SettingsInvalid: an entry has another form.
        """
        self._tenants: list[tuple[bytes, str]] = []
        for entry in settings.api_tokens:
            tenant, _, token = entry.get_secret_value().partition(":")
            if not TENANT.fullmatch(tenant) or not token:
                raise SettingsInvalid("GRANULE_API_TOKENS: each entry is name:token, the name of letters, digits, . _ and -")
            self._tenants.append((_digest(token), tenant))

    def tenant_of(self, request: Request) -> str:
        """Return the tenant that a request comes from.

        Raises:
            Unauthenticated: no token or an unknown one; or no token is configured and the caller is not on this machine.
        """
        if not self._tenants:
            return _local_tenant(request)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() not in SCHEMES or not token.strip():
            raise Unauthenticated("send a token: Authorization: Bearer <token>")
        given = _digest(token.strip())
        # Every entry is compared, so that the time it takes says nothing about which one was near.
        tenants = [tenant for known, tenant in self._tenants if hmac.compare_digest(given, known)]
        if not tenants:
            raise Unauthenticated("this token is not known here")
        return tenants[0]


def _local_tenant(request: Request) -> str:
    """Serve a caller on this machine, and nobody who reached it through a proxy or through a name that leads here."""
    peer = request.remote_addr or ""
    try:
        local = ip_address(peer).is_loopback
    except ValueError:
        local = False
    forwarded = any(name in request.headers for name in FORWARDED)
    if local and not forwarded and _host_name(request.host) in LOCAL_HOSTS:
        return LOCAL_TENANT
    raise Unauthenticated("this server has no tokens and serves its own machine only; set GRANULE_API_TOKENS=name:token")


def _host_name(host: str) -> str:
    name = host.rpartition(":")[0] if re.search(r":[0-9]+$", host) else host
    return name.strip("[]").lower()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
