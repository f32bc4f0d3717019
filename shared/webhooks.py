"""What a webhook may be sent to, and how it is signed. Sending is the courier's.

A caller's address is refused at create when its text alone shows that no request must ever go there. Names are not
resolved at that moment: what one means may change, so the courier checks the address again as it connects to it.
"""

from __future__ import annotations

import base64
import hmac
import re
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from standardwebhooks import Webhook

from shared.errors import WebhookUrlRefused
from shared.settings import Settings

URL_MAX_CHARACTERS = 2048

PRINTABLE_ASCII = re.compile(r"[!-~]+")
HOST_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
PRIVATE_SUFFIXES = frozenset({"localhost", "local", "internal", "localdomain", "lan", "home", "corp", "intranet", "arpa"})
"""Last labels that never belong to a public receiver; cloud metadata services answer under some of them."""

TRANSLATED = (
    IPv6Network("::/96"),  # IPv4-compatible
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated, RFC 2765
    IPv6Network("64:ff9b::/96"),  # NAT64, RFC 6052
    IPv6Network("64:ff9b:1::/48"),  # NAT64 for local use, RFC 8215
    IPv6Network("2002::/16"),  # 6to4
)
"""IPv6 ranges that carry an IPv4 address inside. A receiver that has one is better named by it, so all are refused."""


NOT_PUBLIC = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments; one of them is a cloud's metadata service
    IPv4Network("192.88.99.0/24"),  # 6to4 relays, RFC 7526
    IPv6Network("2001::/23"),  # protocol assignments, RFC 2928
    IPv6Network("3fff::/20"),  # documentation, RFC 9637
    IPv6Network("5f00::/16"),  # segment routing, RFC 9602
)
"""Ranges of which some Python releases call a part public."""


def check_url(url: str, settings: Settings, *, field: str = "webhook") -> None:
    """Refuse an address that webhooks must not be sent to. No name is resolved.

    Receivers are public https on port 443. A host that the operator lists in `webhook_allowed_hosts` may be private, may
    speak plain http and may use any port.

    Raises:
        WebhookUrlRefused: with `field`, and what would be right.
    """
    if len(url) > URL_MAX_CHARACTERS:
        raise _refused(f"is longer than {URL_MAX_CHARACTERS} characters", field)
    if not PRINTABLE_ASCII.fullmatch(url) or "\\" in url:
        raise _refused("must be plain ASCII without spaces and backslashes; write other characters percent-encoded", field)
    parts, host, port = _split(url, field)
    if parts.username is not None or parts.password is not None:
        raise _refused("must not carry a user name or password", field)
    if _is_allowed(host, settings):
        return
    if parts.scheme != "https":
        raise _refused("must be https, unless the operator allows the host", field)
    if port not in (None, 443):
        raise _refused("must use port 443, unless the operator allows the host", field)
    if not _names_public_host(host):
        raise _refused("must name a public host, unless the operator allows it", field)


def is_allowed_host(url: str, settings: Settings) -> bool:
    """Return whether the operator vouches for the host of an address that `check_url` let pass."""
    return _is_allowed(urlsplit(url).hostname or "", settings)


def is_public_address(address: IPv4Address | IPv6Address) -> bool:
    """Return whether a request may be sent to an address: globally routable, unicast, and no IPv4 address in disguise."""
    if isinstance(address, IPv6Address) and (
        address.scope_id is not None or address.is_site_local or any(address in network for network in TRANSLATED)
    ):
        return False
    if any(address in network for network in NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def secret_of(master: str, tenant: str) -> str:
    """Return the signing secret of one tenant, made from the installation's: no tenant can sign what another one receives.

    Both are `whsec_` and standard base64; the tenant's key is HMAC-SHA256 of its name under the installation's key.
    """
    key = base64.b64decode(master.removeprefix("whsec_"))
    return "whsec_" + base64.b64encode(hmac.digest(key, f"webhooks of {tenant}".encode(), "sha256")).decode("ascii")


def sign(secret: str, message_id: str, timestamp: float, body: bytes, *, old_secret: str | None = None) -> dict[str, str]:
    """Return the three headers of the Standard Webhooks scheme for one attempt.

    `secret` is `whsec_` and base64; `message_id` stays the same when a message is sent again; `timestamp` is this attempt's,
    in seconds since 1970. With `old_secret` there are two signatures, and a receiver that knows either secret accepts them.
    """
    at = datetime.fromtimestamp(int(timestamp), tz=UTC)
    keys = [secret] if old_secret is None else [secret, old_secret]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(timestamp)),
        "webhook-signature": " ".join(Webhook(key).sign(message_id, at, body.decode("utf-8")) for key in keys),
    }


def _is_allowed(host: str, settings: Settings) -> bool:
    return host.removesuffix(".") in {allowed.lower() for allowed in settings.webhook_allowed_hosts}


def _split(url: str, field: str) -> tuple[SplitResult, str, int | None]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _refused("is not a valid URL", field) from error
    if parts.scheme not in ("http", "https") or not host:
        raise _refused("must be a full URL such as https://shop.example.com/tiles", field)
    return parts, host.removesuffix("."), port


def _names_public_host(host: str) -> bool:
    labels = host.split(".")
    if ":" in host or NUMERIC_LABEL.fullmatch(labels[-1]):
        # Resolvers read 127.1, 0x7f.0.0.1, 017700000001 and 2130706433 as addresses; only the plain spelling is one here.
        try:
            return is_public_address(ip_address(host))
        except ValueError:
            return False
    return len(labels) > 1 and labels[-1] not in PRIVATE_SUFFIXES and all(map(HOST_LABEL.fullmatch, labels))


def _refused(detail: str, field: str) -> WebhookUrlRefused:
    return WebhookUrlRefused(f"the webhook address {detail}", field=field)
