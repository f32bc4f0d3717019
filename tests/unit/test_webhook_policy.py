from __future__ import annotations

import base64
import time
from ipaddress import ip_address

import pytest
from replicate.webhook import Webhooks, WebhookSigningSecret
from standardwebhooks import Webhook, WebhookVerificationError

from shared.errors import WebhookUrlRefused
from shared.settings import Settings
from shared.webhooks import URL_MAX_CHARACTERS, check_url, is_public_address, secret_of, sign

SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of a test secret").decode()


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example.com/hooks/tiles?order=1#x",
        "https://shop.example.com:443/",
        "https://SHOP.example.COM./hook",
        "https://xn--e1afmkfd.xn--p1ai/hook",
        "https://1.1.1.1/hook",
        "https://[2606:4700:4700::1111]/hook",
        "https://a_b.example.com/hook",
        "https://10.example.com/hook",
    ],
)
def test_public_https_is_taken(url: str) -> None:
    check_url(url, Settings())


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST.", "api.localhost", "redis", "printer.local", "metadata.google.internal", "nas.lan",
        "1.0.0.127.in-addr.arpa",
        "127.0.0.1", "127.1", "127.0.0.1.", "2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001", "0177.0.0.1", "0", "0x",
        "10.0.0.8", "172.16.3.4", "192.168.1.1", "100.64.0.1", "169.254.169.254", "0xa9fea9fe", "192.0.0.192", "198.18.0.1",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "0.0.0.0", "1.2.3", "1.1.1.1.1", "999.1.1.1",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:8.8.8.8]", "[::ffff:7f00:1]", "[::127.0.0.1]",
        "[64:ff9b::7f00:1]", "[64:ff9b:1::a00:1]",
        "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[fe80::1]", "[fe80::1%25eth0]", "[fc00::1]", "[fd00:ec2::254]", "[fec0::1]",
        "[ff02::1]", "[2001:db8::1]", "[::1", "exa mple.com", "-a.example.com", "a..example.com",
        "%31%32%37.0.0.1", "\uff11\uff12\uff17.0.0.1",
    ],
)  # fmt: skip
def test_what_is_not_public_is_refused_in_every_spelling(host: str) -> None:
    with pytest.raises(WebhookUrlRefused) as caught:
        check_url(f"https://{host}/hook", Settings())
    assert caught.value.field == "webhook"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://shop.example.com/hook", "must be https"),
        ("ftp://shop.example.com/hook", "full URL"),
        ("file:///etc/passwd", "full URL"),
        ("shop.example.com/hook", "full URL"),
        ("//shop.example.com/hook", "full URL"),
        ("", "ASCII"),
        ("https://user@shop.example.com/", "user name"),
        ("https://user:word@shop.example.com/", "user name"),
        ("https://shop.example.com@127.0.0.1/", "user name"),
        ("https://shop.example.com:8443/", "port 443"),
        ("https://shop.example.com:99999/", "not a valid URL"),
        ("https://shop.example.com:0/", "port 443"),
        ("https://shop.example.com\\@127.0.0.1/", "backslashes"),
        ("https://shop.example.com/\r\nHost: x", "without spaces"),
        ("https://shop.example.com/" + "a" * URL_MAX_CHARACTERS, "longer"),
    ],
)
def test_a_refusal_says_what_would_be_right(url: str, says: str) -> None:
    with pytest.raises(WebhookUrlRefused, match=says):
        check_url(url, Settings())


def test_a_host_that_the_operator_allows_may_be_private_plain_and_on_any_port() -> None:
    settings = Settings(webhook_allowed_hosts=("10.0.0.8", "Shop.internal", "::1"))
    for url in ("http://10.0.0.8:8080/hook", "https://shop.internal/hook", "http://[::1]:9/"):
        check_url(url, settings)
    for url in (
        "http://10.0.0.9/",
        "http://user@10.0.0.8/",
        "ftp://10.0.0.8/",
        "http://010.0.0.8/",
        "http://10.0.0.8.example.com/",
    ):
        with pytest.raises(WebhookUrlRefused):
            check_url(url, settings)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("10.1.2.3", False),
        ("::ffff:93.184.215.14", False),
        ("2a00:1450:4001::1", True),
        ("fe80::1%eth0", False),
    ],
)
def test_addresses_that_a_name_resolved_to(address: str, public: bool) -> None:
    assert is_public_address(ip_address(address)) is public


def test_both_reference_libraries_accept_the_signature() -> None:
    body = '{"prompt":"50% красный"}'.encode()
    headers = sign(SECRET, "msg_1", time.time(), body)
    assert Webhook(SECRET).verify(body, headers) == {"prompt": "50% красный"}
    Webhooks.validate(headers=headers, body=body.decode(), secret=WebhookSigningSecret(key=SECRET), tolerance=60)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", headers)


def test_a_later_attempt_has_the_same_id_and_a_new_time_and_signature() -> None:
    first, second = sign(SECRET, "msg_1", 1_763_800_000.9, b"{}"), sign(SECRET, "msg_1", 1_763_800_005, b"{}")
    assert first["webhook-timestamp"] == "1763800000"
    assert first["webhook-id"] == second["webhook-id"]
    assert first["webhook-signature"] != second["webhook-signature"]


def test_no_tenant_signs_what_another_one_receives() -> None:
    first, second = secret_of(SECRET, "shop"), secret_of(SECRET, "other")
    assert len({SECRET, first, second}) == 3
    assert first == secret_of(SECRET, "shop") and first.count("_") == 1
    headers = sign(first, "msg_1", time.time(), b"{}")
    Webhook(first).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(second).verify(b"{}", headers)
