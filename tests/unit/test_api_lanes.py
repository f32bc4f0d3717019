"""`X-Priority`: which lanes a caller may order in, and who is served first."""

from __future__ import annotations

from pathlib import Path

import fakeredis
import pytest
from flask.testing import FlaskClient

from api.server import create_app
from api.tokens import new_entry
from shared.job_store import JobStore
from shared.settings import Settings
from tests.contracts.api import MIX, MODEL, idle_storage

BODY = {"version": MODEL, "input": {"prompt": MIX}}


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(new_entry("shop", "shop-token", {}) + new_entry("batch", "batch-token", {"lanes": ["low"]}))
    redis = fakeredis.FakeRedis(decode_responses=True)
    store = JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)
    settings = Settings(redis_prefix="test:", api_tokens_file=tokens)
    app = create_app(settings, store=store, enqueue=lambda *_, **__: None, storage=idle_storage())
    return app.test_client()


def headers(priority: str | None, token: str = "shop-token") -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} | ({} if priority is None else {"X-Priority": priority})


def test_lanes_are_served_in_their_order(client: FlaskClient) -> None:
    made = {
        name: client.post("/v1/predictions", json=BODY, headers=headers(name)).json["id"]
        for name in ("low", "normal", " HIGH ", "low ")
    }
    places = {}
    for name, job_id in made.items():
        found = client.get(f"/v1/predictions/{job_id}", headers=headers(None)).json
        assert found["priority"] == name.strip().lower()
        places[name] = found["queue_position"]
    assert places == {" HIGH ": 0, "normal": 1, "low": 2, "low ": 3}


@pytest.mark.parametrize("priority", ["urgent", "", "recovery", "1", "high, low"])
def test_what_is_no_lane_is_refused(client: FlaskClient, priority: str) -> None:
    refused = client.post("/v1/predictions", json=BODY, headers=headers(priority))
    assert (refused.status_code, refused.json["invalid_fields"][0]["field"]) == (422, "X-Priority")
    assert "high, normal, low" in refused.json["detail"]


def test_a_token_orders_in_its_own_lanes_only(client: FlaskClient) -> None:
    assert client.post("/v1/predictions", json=BODY, headers=headers(None)).json["priority"] == "normal"
    assert client.post("/v1/predictions", json=BODY, headers=headers(None, "batch-token")).json["priority"] == "low"
    refused = client.post("/v1/predictions", json=BODY, headers=headers("high", "batch-token"))
    assert (refused.status_code, refused.json["detail"]) == (422, "X-Priority is one of low")
