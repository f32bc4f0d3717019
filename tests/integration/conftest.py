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
from pydantic import SecretStr

from infra.local.ports import free_block
from infra.local.process import Program
from infra.local.redis_server import RedisServer
from infra.local.s3_server import PORT_COUNT, S3Server
from infra.local.supervisor import Supervisor
from shared.settings import Settings
from tests.integration.command_line import write_small_models


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
