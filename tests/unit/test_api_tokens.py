"""Tokens out of a file: what an entry says, when it counts, and what it lets its bearer do."""

from __future__ import annotations

import logging
import os
import tomllib
from pathlib import Path

import fakeredis
import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from redis import Redis
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from api.auth import Tokens
from api.server import create_app
from api.tokens import LANES, Scope, digest, main, new_entry
from shared.errors import Forbidden, SettingsInvalid, Unauthenticated
from shared.job_store import JobStore
from shared.settings import Settings
from shared.worker_registry import WorkerRegistry
from tests.contracts.api import MIX, MODEL, idle_storage

BODY = {"version": MODEL, "input": {"prompt": MIX}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with one token, `one`, of the shop."""
    path = tmp_path / "tokens.toml"
    path.write_text(new_entry("shop", "one", {}))
    return path


def tokens(file: Path, **changes: object) -> Tokens:
    return Tokens(Settings(api_tokens_file=file, **changes))


def request(token: str) -> Request:
    return EnvironBuilder(headers={"Authorization": f"Bearer {token}"}).get_request()


def rewrite(file: Path, text: str) -> None:
    """Write as an editor does, and so that the time of the change differs however coarse the clock is."""
    before = file.stat().st_mtime_ns
    file.write_text(text)
    os.utime(file, ns=(before + 10**9, before + 10**9))


def test_an_entry_of_a_digest_alone(file: Path) -> None:
    token = tokens(file).token_of(request("one"))
    assert (token.name, token.tenant) == ("shop", "shop")
    assert token.scopes == {Scope.READ, Scope.CREATE}
    assert token.lanes == set(LANES)
    assert (token.max_waiting_jobs, token.creates_per_minute) == (None, None)


def test_an_entry_with_everything(file: Path) -> None:
    entry = {"tenant": "shop", "scopes": ["read"], "lanes": ["low"], "max_waiting_jobs": 5, "creates_per_minute": 60}
    file.write_text(new_entry("shop.night", "two", entry))
    token = tokens(file, token_max_waiting_jobs=9, token_creates_per_minute=9).token_of(request("two"))
    assert (token.name, token.tenant, token.scopes, token.lanes) == ("shop.night", "shop", {"read"}, {"low"})
    assert (token.max_waiting_jobs, token.creates_per_minute) == (5, 60)


def test_limits_that_are_left_out_are_those_of_the_settings(file: Path) -> None:
    known = tokens(file, token_max_waiting_jobs=9, token_creates_per_minute=8, api_tokens=(SecretStr("studio:two"),))
    for value in ("one", "two"):
        token = known.token_of(request(value))
        assert (token.max_waiting_jobs, token.creates_per_minute) == (9, 8)


def test_tokens_come_and_go_without_a_restart(file: Path) -> None:
    known = tokens(file)
    rewrite(file, new_entry("shop", "one", {}) + new_entry("shop.next", "two", {"tenant": "shop"}))
    assert known.token_of(request("one")).tenant == known.token_of(request("two")).tenant == "shop"
    rewrite(file, new_entry("shop.next", "two", {"tenant": "shop"}))
    with pytest.raises(Unauthenticated):
        known.token_of(request("one"))
    assert known.token_of(request("two")).name == "shop.next"


def test_a_change_that_cannot_be_read_leaves_the_tokens_from_before(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = tokens(file)
    for damage in (lambda: rewrite(file, "[tokens"), file.unlink):
        caplog.clear()
        damage()
        with caplog.at_level(logging.ERROR):
            assert known.token_of(request("one")).name == "shop"
            assert known.token_of(request("one")).name == "shop"
        assert len(caplog.records) == 1
        assert str(file) in caplog.text
    file.write_text(new_entry("shop", "two", {}))
    assert known.token_of(request("two")).name == "shop"


def test_an_empty_file_serves_nobody(file: Path) -> None:
    file.write_text("[tokens]")
    with pytest.raises(Unauthenticated):
        tokens(file).token_of(EnvironBuilder(environ_base={"REMOTE_ADDR": "127.0.0.1"}).get_request())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "tokens: Field required"),
        ("[tokens.shop]", "tokens.shop.sha256"),
        ('[tokens.shop]\nsha256 = "my-secret-token"', "tokens.shop.sha256"),
        (f'[tokens."s hop"]\nsha256 = "{"0" * 64}"', "tokens.s hop"),
        (f'[tokens.shop]\nsha256 = "{"0" * 64}"\nscope = ["read"]', "tokens.shop.scope"),
        (f'[tokens.shop]\nsha256 = "{"0" * 64}"\nscopes = ["write"]', "tokens.shop.scopes.0"),
        (f'[tokens.shop]\nsha256 = "{"0" * 64}"\nscopes = []', "tokens.shop.scopes"),
        (f'[tokens.shop]\nsha256 = "{"0" * 64}"\nlanes = ["recovery"]', "tokens.shop.lanes.0"),
        (f'[tokens.shop]\nsha256 = "{"0" * 64}"\nmax_waiting_jobs = 0', "tokens.shop.max_waiting_jobs"),
        (f'[tokens.a]\nsha256 = "{"0" * 64}"\n[tokens.b]\nsha256 = "{"0" * 64}"', "two names"),
        ("[tokens.shop]\nsha256 = 0\n[tokens.shop]", "tokens.toml"),
    ],
)
def test_a_file_of_another_form_stops_the_start_and_says_where(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsInvalid) as caught:
        tokens(file)
    assert said in str(caught.value)
    assert "my-secret-token" not in str(caught.value)


def test_the_command_makes_a_token_and_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "shop.night", "--tenant", "shop", "--scopes", "read", "--creates-per-minute", "60"]) == 0
    out, err = capsys.readouterr()
    token = err.split()[-1]
    assert len(token) == 43
    assert token not in out
    entry = {"sha256": digest(token).hex(), "tenant": "shop", "scopes": ["read"], "creates_per_minute": 60}
    assert tomllib.loads(out) == {"tokens": {"shop.night": entry}}


@pytest.mark.parametrize(
    "arguments", [["new", "s hop"], ["new", "shop", "--scopes", "write"], ["new"], ["new", "a", "--lanes", "recovery"]]
)
def test_the_command_refuses_what_the_file_could_not_hold(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert capsys.readouterr().out == ""


def test_a_scope_is_required_by_name(file: Path) -> None:
    file.write_text(new_entry("viewer", "one", {"scopes": ["read"]}))
    token = tokens(file).token_of(request("one"))
    token.require(Scope.READ)
    with pytest.raises(Forbidden, match="create") as caught:
        token.require(Scope.CREATE)
    assert caught.value.field == "Authorization"


class TestScopesOverHttp:
    @pytest.fixture
    def client(self, tmp_path: Path) -> FlaskClient:
        entries = {"viewer": ["read"], "printer": ["create"], "shop": ["read", "create"], "root": ["admin"]}
        path = tmp_path / "tokens.toml"
        path.write_text(
            "".join(new_entry(n, n, {"scopes": s, "tenant": "root" if n == "root" else "shop"}) for n, s in entries.items())
        )
        redis: Redis = fakeredis.FakeRedis(decode_responses=True)
        store = JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)
        workers = WorkerRegistry(redis, prefix="test:", ttl_s=15)
        settings = Settings(api_tokens_file=path)
        app = create_app(settings, store=store, enqueue=lambda *_, **__: None, storage=idle_storage(), workers=workers)
        return app.test_client()

    def test_reading_and_creating(self, client: FlaskClient) -> None:
        for token, read, create in (("viewer", 200, 403), ("printer", 403, 201), ("shop", 200, 201), ("root", 200, 201)):
            headers = {"Authorization": f"Bearer {token}"}
            assert client.get("/v1/predictions", headers=headers).status_code == read
            assert client.open("/v1/models", method="QUERY", headers=headers).status_code == read
            created = client.post("/v1/predictions", json=BODY, headers=headers)
            assert created.status_code == create
            if create == 403:
                assert created.json["invalid_fields"][0]["field"] == "Authorization"

    def test_an_admin_sees_and_ends_the_jobs_of_others(self, client: FlaskClient) -> None:
        made = client.post("/v1/predictions", json=BODY, headers={"Authorization": "Bearer shop"}).json["id"]
        root = {"Authorization": "Bearer root"}
        assert client.get(f"/v1/predictions/{made}", headers=root).status_code == 200
        assert client.post(f"/v1/predictions/{made}/cancel", headers=root).json["status"] == "canceled"

    def test_an_admin_lists_the_jobs_of_all_or_of_one(self, client: FlaskClient) -> None:
        shop, root = {"Authorization": "Bearer shop"}, {"Authorization": "Bearer root"}
        made = [client.post("/v1/predictions", json=BODY, headers=who).json for who in (shop, root, shop)]
        assert [each["tenant"] for each in made] == ["shop", "root", "shop"]

        def listed(query: str, headers: dict[str, str]) -> list[str]:
            return [each["id"] for each in client.get(f"/v1/predictions{query}", headers=headers).json["results"]]

        ids = [each["id"] for each in made[::-1]]
        assert listed("", root) == ids
        assert listed(f"?created_after={made[0]['created_at']}".replace("+", "%2B"), root) == ids
        assert listed("?tenant=shop", root) == listed("", shop) == listed("?tenant=shop", shop) == [ids[0], ids[2]]
        assert listed("?tenant=nobody", root) == []
        refused = client.get("/v1/predictions?tenant=root", headers=shop)
        assert (refused.status_code, refused.json["code"]) == (403, "forbidden")

    def test_the_account_says_what_its_token_may(self, client: FlaskClient) -> None:
        assert client.get("/v1/account", headers={"Authorization": "Bearer viewer"}).json["token"] == {
            "name": "viewer",
            "scopes": ["read"],
            "lanes": ["high", "normal", "low"],
            "max_waiting_jobs": None,
            "creates_per_minute": None,
            "creates_remaining": None,
            "max_candidates": 4,
        }
