"""What the API says of itself, held against what it does, by requests that nobody thought of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import Redis

from api.tokens import new_entry
from shared.redis_client import connect
from shared.settings import Settings
from shared.worker_registry import WorkerInfo, connect_workers
from tests.contracts.api import MODEL
from tests.integration.clients.service import SECRET
from tests.integration.conftest import S3Location
from tests.integration.processes import api_server

TIME_LIMIT_S = 120
EXAMPLES_PER_OPERATION = 12

CONFIG = f"""
[checks]
# A schema cannot say which texts are mixes whose shares sum to 100, so a body that fits it may still be refused.
positive_data_acceptance.enabled = false
# The row of a deleted prediction stays readable; it is the picture and the input that are gone.
use_after_free.enabled = false

[parameters]
owner = "{MODEL.partition("/")[0]}"
name = "{MODEL.partition("/")[2]}"

[[operations]]
include-path = "/v1/models"
# It answers QUERY too, a method that OpenAPI 3.0 has no word for.
checks.unsupported_method.enabled = false
checks.allow_header_conformance.enabled = false

[[operations]]
include-path = "/v1/files"
# It answers 501, which makes clients send inputs inside the body.
enabled = false

[[operations]]
include-path = "/v1/files/{{file_id}}"
enabled = false
"""


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url, timeout_s=5) as client:
        yield client


@pytest.mark.parametrize(
    ("scopes", "phases"), [(["admin"], "examples,coverage,fuzzing,stateful"), (["read"], "examples,coverage")], ids=str
)
def test_no_request_breaks_the_server_or_its_description(
    redis: Redis, redis_url: str, s3: S3Location, tmp_path: Path, scopes: list[str], phases: str
) -> None:
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "tokens.toml").write_text(new_entry("shop", "shop-token", {"scopes": scopes}))
    settings = s3.settings(
        Settings(
            redis_url=redis_url,
            hold_max_s=1,
            stream_limit_s=1,
            heartbeat_s=200,
            lease_s=600,
            webhook_secret=SecretStr(SECRET),
        )
    )
    connect_workers(settings, redis).beat(WorkerInfo("w1", MODEL, "cpu"))
    with api_server(settings, tmp_path, GRANULE_API_TOKENS_FILE=str(tmp_path / "tokens.toml")) as base_url:
        run = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", "config.toml", "run", f"{base_url}/openapi.json"),
                *("--header", "Authorization: Bearer shop-token"),
                *("--phases", phases, "--max-examples", str(EXAMPLES_PER_OPERATION)),
                *("--seed", "1", "--generation-deterministic"),
                *("--continue-on-failure", "--no-color"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
