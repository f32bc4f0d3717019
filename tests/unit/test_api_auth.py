from __future__ import annotations

import pytest
from pydantic import SecretStr
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from api.auth import Tokens
from shared.errors import SettingsInvalid, Unauthenticated
from shared.settings import Settings


def tokens(*entries: str) -> Tokens:
    return Tokens(Settings(api_tokens=tuple(map(SecretStr, entries))))


def request(peer: str = "203.0.113.9", **headers: str) -> Request:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return EnvironBuilder(environ_base={"REMOTE_ADDR": peer}, headers=names).get_request()


@pytest.mark.parametrize("header", ["Bearer one", "bearer one", "TOKEN one", "Token  one ", "bEaReR one"])
def test_both_schemes_in_any_case(header: str) -> None:
    assert tokens("shop:one", "studio:two").token_of(request(Authorization=header)).tenant == "shop"


def test_a_token_names_its_tenant_and_may_hold_colons() -> None:
    known = tokens("shop:one", "studio:a:b:c")
    assert known.token_of(request(Authorization="Bearer a:b:c")).tenant == "studio"


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic one", "one", "Bearer shop", "Bearer onet", "Bearer on", "Bearer \xff"]
)
def test_everything_else_is_refused(header: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens("shop:one").token_of(request("127.0.0.1", Authorization=header))


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1"])
def test_without_tokens_this_machine_is_served(peer: str) -> None:
    assert tokens().token_of(request(peer, Host="127.0.0.1:8000")).tenant == "local"
    assert tokens().token_of(request(peer, Host="[::1]:8000")).tenant == "local"
    assert tokens().token_of(request(peer, Host="LocalHost", Authorization="Bearer anything")).tenant == "local"


@pytest.mark.parametrize("peer", ["203.0.113.9", "10.0.0.1", "", "unix:", "::ffff:203.0.113.9"])
def test_without_tokens_no_other_machine_is(peer: str) -> None:
    with pytest.raises(Unauthenticated, match="GRANULE_API_TOKENS"):
        tokens().token_of(request(peer, Host="localhost"))


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Forwarded_For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X_Real_IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X_Forwarded_Proto": "https"},
        {"Host": "tiles.example.com"},
        {"Host": "localhost.example.com"},
    ],
)
def test_without_tokens_nobody_comes_through_a_proxy_or_a_foreign_name(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated):
        tokens().token_of(request("127.0.0.1", **({"Host": "localhost"} | headers)))


@pytest.mark.parametrize("origin", ["http://localhost:8000", "http://127.0.0.1:5173", "http://[::1]:8000", "https://localhost"])
def test_without_tokens_pages_of_this_machine_are_served(origin: str) -> None:
    assert tokens().token_of(request("127.0.0.1", Host="localhost", Origin=origin)).tenant == "local"


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", "", "http://localhost.example.com", "localhost"])
def test_without_tokens_no_page_from_elsewhere_is(origin: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens().token_of(request("127.0.0.1", Host="localhost", Origin=origin))


def test_without_tokens_nobody_comes_over_the_version_of_http_that_proxies_speak_by_default() -> None:
    asked = request("127.0.0.1", Host="localhost")
    asked.environ["SERVER_PROTOCOL"] = "HTTP/1.0"
    with pytest.raises(Unauthenticated):
        tokens().token_of(asked)


def test_a_server_for_the_world_has_tokens() -> None:
    with pytest.raises(SettingsInvalid, match="GRANULE_API_TOKENS"):
        Tokens(Settings(public_url="https://tiles.example.com"))


@pytest.mark.parametrize("entry", ["s3cret", "s3cret:", ":s3cret", "s3 cret:x"])
def test_an_entry_of_another_form_stops_the_start_without_showing_it(entry: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        tokens(entry)
    assert entry not in str(caught.value)
