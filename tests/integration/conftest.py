"""Real servers for the integration tests: one Redis and one S3 for the whole run, on loopback and free ports."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from celery import Celery
from pydantic import SecretStr

from infra.local.ports import free_block
from infra.local.process import Program
from infra.local.redis_server import RedisServer
from infra.local.s3_server import PORT_COUNT, S3Server
from infra.local.supervisor import Supervisor
from shared.job_store import JobStore, connect_store
from shared.manifest import Manifest, load_manifest
from shared.queue import make_celery
from shared.redis_client import connect
from shared.settings import REPOSITORY, Settings
from shared.storage import Storage, connect_storage
from shared.worker_registry import WorkerRegistry, connect_workers
from tests.integration.command_line import write_small_models


@pytest.fixture(scope="session")
def random_mini(checkpoint_dir: Path) -> Manifest:
    """Mini's manifest over the random checkpoint, for pictures of 128 x 128."""
    mini = load_manifest(REPOSITORY / "models" / "rubber-tile-mini.toml")
    assert mini.lora is not None and mini.textual_inversion is not None
    return mini.model_copy(
        update={
            "base": str(checkpoint_dir),
            "lora": mini.lora.model_copy(update={"file": str(checkpoint_dir / Path(mini.lora.file).name)}),
            "textual_inversion": mini.textual_inversion.model_copy(
                update={"file": str(checkpoint_dir / Path(mini.textual_inversion.file).name)}
            ),
            "render": mini.render.model_copy(update={"width_px": 128, "height_px": 128}),
        }
    )


@dataclass(frozen=True)
class S3Location:
    """A bucket on the test server, and the keys to it."""

    endpoint_url: str
    bucket: str
    access_key_id: str
    secret_access_key: str

    def settings(self, settings: Settings) -> Settings:
        """A copy of `settings` that points here."""
        return settings.model_copy(
            update={
                "s3_endpoint_url": self.endpoint_url,
                "s3_bucket": self.bucket,
                "s3_access_key_id": SecretStr(self.access_key_id),
                "s3_secret_access_key": SecretStr(self.secret_access_key),
            }
        )


def write_stderr(name: str, line: str) -> None:
    sys.stderr.write(f"{name} | {line}\n")


def serve(program: Program, factory: pytest.TempPathFactory) -> Supervisor:
    return Supervisor([program], folder=factory.mktemp(program.name + "-run"), write_line=write_stderr)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Redis-compatible server of this run."""
    folder = tmp_path_factory.mktemp("redis")
    server = RedisServer(directory=folder, port=free_block(1)[0], password=secrets.token_hex(16), appendfsync="everysec")
    with serve(server.program(os.environ), tmp_path_factory) as supervisor:
        supervisor.start()
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Address of a Redis that holds nothing when the test begins."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def store(settings: Settings) -> JobStore:
    """The record of jobs that the module's `settings` name."""
    return connect_store(settings, connect(settings.redis_url, timeout_s=5))


@pytest.fixture
def storage(settings: Settings) -> Storage:
    """The bucket that they name."""
    return connect_storage(settings)


@pytest.fixture
def celery(settings: Settings) -> Celery:
    """The broker that they name."""
    return make_celery(settings)


@pytest.fixture
def workers(settings: Settings) -> WorkerRegistry:
    """The workers there."""
    return connect_workers(settings, connect(settings.redis_url, timeout_s=5))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The S3-compatible server of this run."""
    server = S3Server(
        directory=tmp_path_factory.mktemp("s3"),
        ports=free_block(PORT_COUNT),
        bucket="granule",
        access_key_id=secrets.token_hex(10),
        secret_access_key=secrets.token_hex(20),
    )
    with serve(server.program(os.environ), tmp_path_factory) as supervisor:
        supervisor.start()
        yield server


@pytest.fixture(scope="module")
def s3(s3_server: S3Server) -> S3Location:
    """A bucket that the tests of one module have to themselves."""
    bucket = f"test-{secrets.token_hex(6)}"
    client = s3_server.client()
    client.create_bucket(Bucket=bucket)
    client.close()
    return S3Location(s3_server.endpoint_url, bucket, s3_server.access_key_id, s3_server.secret_access_key)


@pytest.fixture(scope="session")
def small_models(checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder whose one model draws 256 pixels in two steps, with random weights."""
    folder = tmp_path_factory.mktemp("models")
    write_small_models(folder, checkpoint_dir)
    return folder
