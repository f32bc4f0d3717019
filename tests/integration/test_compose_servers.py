"""The servers' command lines of docker-compose.yml, run with the binaries of the local stack in place of the images'."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml

from infra.compose_secrets import make_secrets
from infra.local.ports import free_block
from infra.local.redis_server import find_redis_server
from infra.local.s3_server import PARTS, find_weed, s3_client
from shared.settings import REPOSITORY
from tests.integration.processes import wait_until

FILE = REPOSITORY / "infra" / "docker-compose.yml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
    return found


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    make_secrets(tmp_path / "secrets")
    return tmp_path / "secrets"


@contextmanager
def running(command: list[str], environ: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_redis_gets_its_password_and_its_promises_and_hears_when_to_stop(services: dict[str, Any], secrets: Path) -> None:
    folder = secrets.parent
    (folder / "data").mkdir()
    (folder / "bin").mkdir()
    (folder / "bin" / "valkey-server").symlink_to(find_redis_server(os.environ["PATH"]))
    port = free_block(1)[0]
    config = (FILE.parent / "redis.conf").read_text().replace("dir /data", f"dir {folder}/data")
    (folder / "redis.conf").write_text(f"{config}port {port}\nbind 127.0.0.1\n")
    shell, option, script = services["redis"]["command"]
    script = script.replace("$$", "$").replace("/etc/redis.conf", f"{folder}/redis.conf").replace("/run/secrets", str(secrets))
    environ = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "MAXMEMORY": "64mb", "LC_ALL": "C"}
    password = (secrets / "GRANULE_REDIS_URL").read_text().split(":")[2].split("@")[0]
    with (
        running([shell, option, script], environ, folder) as server,
        redis.Redis(port=port, password=password, decode_responses=True) as client,
        redis.Redis(port=port) as stranger,
    ):
        wait_until(lambda: answers(client))
        found = client.config_get("*")
        assert (found["appendonly"], found["appendfsync"], found["maxmemory-policy"]) == ("yes", "everysec", "noeviction")
        assert found["maxmemory"] == str(64 * 2**20)
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()
    assert server.returncode == 0
    (secrets / "GRANULE_REDIS_URL").write_text("redis://redis:6379/0")
    open_to_all = subprocess.run([shell, option, script], env=environ, cwd=folder, capture_output=True, text=True, timeout=30)
    assert open_to_all.returncode != 0 and "holds no password" in open_to_all.stderr


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_the_storage_server_makes_the_bucket_and_asks_for_the_keys(services: dict[str, Any], secrets: Path) -> None:
    folder = secrets.parent
    (folder / "data").mkdir()
    ports = free_block(2 * len(PARTS))
    known = {"-dir=/data": f"-dir={folder}/data", "-ip=s3": "-ip=127.0.0.1", "-ip.bind=0.0.0.0": "-ip.bind=127.0.0.1"}
    known |= {"-s3.port=8333": f"-s3.port={ports[0]}", "-s3.config=/run/secrets/s3.json": f"-s3.config={secrets}/s3.json"}
    arguments = [known.get(argument, argument) for argument in services["s3"]["command"]]
    assert set(known.values()) <= set(arguments)
    arguments = [argument.replace("${S3_BUCKET:-granule}", "granule") for argument in arguments]
    arguments += [f"-s3.port.grpc={ports[1]}", f"-filer.localSocket={folder}/f.sock", f"-s3.localSocket={folder}/s.sock"]
    for index, part in enumerate((part for part in PARTS if part != "s3"), start=1):
        arguments += [f"-{part}.port={ports[2 * index]}", f"-{part}.port.grpc={ports[2 * index + 1]}"]
    pair = [(secrets / f"GRANULE_S3_{name}").read_text().strip() for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")]
    address = f"http://127.0.0.1:{ports[0]}"
    with running([find_weed(os.environ["PATH"]), *arguments], {"PATH": os.environ["PATH"], "HOME": str(folder)}, folder):
        wait_until(lambda: healthy(address))
        client = s3_client(address, pair[0], pair[1], "us-east-1")
        wait_until(lambda: "granule" in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]])
        client.put_object(Bucket="granule", Key="tile.png", Body=b"tile")
        assert httpx.get(f"{address}/granule/tile.png").status_code == 403


def healthy(address: str) -> bool:
    """What the container's health check asks."""
    try:
        return httpx.get(f"{address}/healthz").is_success
    except httpx.TransportError:
        return False
