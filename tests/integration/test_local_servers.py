"""The embedded servers do what the rest relies on: they keep data, and they refuse strangers."""

import os
import secrets
import signal
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
import redis
import requests
from botocore.config import Config
from botocore.exceptions import ClientError
from redis.backoff import NoBackoff
from redis.retry import Retry

from infra.local.ports import free_block
from infra.local.redis_server import RedisServer
from infra.local.s3_server import PORT_COUNT, S3Server
from infra.local.supervisor import Supervisor
from tests.integration.conftest import S3Location, write_stderr


def test_redis_refuses_a_client_without_the_password(redis_server: RedisServer) -> None:
    with redis.Redis(port=redis_server.port, retry=Retry(NoBackoff(), 0)) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_redis_refuses_writes_rather_than_evict(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        settings = client.config_get("maxmemory-policy", "appendonly", "bind")
    assert settings == {"maxmemory-policy": "noeviction", "appendonly": "yes", "bind": "127.0.0.1"}


def test_redis_keeps_the_last_write_through_a_kill(tmp_path: Path) -> None:
    # A space and a quote in the path: the configuration must survive them.
    server = RedisServer(directory=tmp_path / 'a "b" c', port=free_block(1)[0], password=secrets.token_hex(8))
    with Supervisor([server.program(os.environ)], folder=tmp_path / "run", write_line=write_stderr) as supervisor:
        supervisor.start()
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "value")
        pid = supervisor.pid("redis")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while not server.is_ready():
            supervisor.check()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("key") == b"value"


def test_passwords_lie_in_files_of_their_owner_only(redis_server: RedisServer, s3_server: S3Server) -> None:
    for file in (redis_server.directory / "server.conf", s3_server.directory / "identities.json"):
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("key_id, secret", [("own", "wrong"), ("wrong", "own")])
def test_s3_refuses_wrong_keys(s3: S3Location, key_id: str, secret: str) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=s3.access_key_id if key_id == "own" else key_id,
        aws_secret_access_key=s3.secret_access_key if secret == "own" else secret,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}),
    )
    try:
        with pytest.raises(ClientError) as caught:
            client.put_object(Bucket=s3.bucket, Key="key", Body=b"data")
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    finally:
        client.close()


def test_s3_refuses_a_stranger(s3: S3Location) -> None:
    assert requests.get(f"{s3.endpoint_url}/{s3.bucket}/", timeout=5).status_code == 403


def test_s3_keeps_objects_through_a_restart_on_other_ports(tmp_path: Path) -> None:
    server = S3Server(
        directory=tmp_path / "s3",
        ports=free_block(PORT_COUNT),
        bucket="tiles",
        access_key_id=secrets.token_hex(8),
        secret_access_key=secrets.token_hex(16),
    )
    for run in (1, 2):
        server = replace(server, ports=free_block(PORT_COUNT))
        with Supervisor([server.program(os.environ)], folder=tmp_path / "run", write_line=write_stderr) as supervisor:
            supervisor.start()
            client = server.client()
            if run == 1:
                client.put_object(Bucket="tiles", Key="a/b.png", Body=b"x" * 100_000, ContentType="image/png")
            found = client.get_object(Bucket="tiles", Key="a/b.png")
            assert (len(found["Body"].read()), found["ContentType"]) == (100_000, "image/png")
            client.close()


def test_s3_takes_no_setting_from_the_environment(tmp_path: Path) -> None:
    server = S3Server(directory=tmp_path, ports=range(1, 11), bucket="tiles", access_key_id="a", secret_access_key="b")
    program = server.program({"PATH": "/usr/bin", "S3": "false", "AWS_ACCESS_KEY_ID": "other", "DEBUG": "1"})
    assert program.env == {"PATH": "/usr/bin", "HOME": str(tmp_path)}
