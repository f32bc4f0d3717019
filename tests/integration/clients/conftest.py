"""The server that all official clients are tested against."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from api.tokens import new_entry
from infra.local.redis_server import RedisServer
from shared.job_store import connect_store
from shared.redis_client import connect
from shared.settings import Settings
from shared.storage import connect_storage
from tests.integration.clients.service import (
    HASTY_CREATES_PER_MINUTE,
    HASTY_TOKEN,
    SECRET,
    TENANT,
    TOKEN,
    Service,
    StandInWorker,
)
from tests.integration.conftest import S3Location
from tests.integration.processes import api_server


@pytest.fixture(scope="module")
def server(
    redis_server: RedisServer, s3: S3Location, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Settings]]:
    """Address and settings of an API behind gunicorn."""
    settings = s3.settings(Settings(redis_url=redis_server.url, webhook_secret=SecretStr(SECRET)))
    folder = tmp_path_factory.mktemp("gunicorn")
    hasty = new_entry("hasty", HASTY_TOKEN, {"tenant": TENANT, "creates_per_minute": HASTY_CREATES_PER_MINUTE})
    (folder / "tokens.toml").write_text(hasty)
    variables = {"GRANULE_API_TOKENS": f"{TENANT}:{TOKEN}", "GRANULE_API_TOKENS_FILE": str(folder / "tokens.toml")}
    with api_server(settings, folder, **variables) as base_url:
        yield base_url, settings


@pytest.fixture
def service(server: tuple[str, Settings], redis_url: str) -> Iterator[Service]:
    base_url, settings = server
    with connect(redis_url, timeout_s=5) as redis:
        worker = StandInWorker(connect_store(settings, redis), connect_storage(settings))
        thread = threading.Thread(target=worker.run)
        thread.start()
        service = Service(base_url, worker.store, worker)
        yield service
        worker.stopping.set()
        thread.join()
        for client in service.clients:
            client._client.close()
