"""`up` and `demo` as a user runs them: real servers, a real pipeline, real signals."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from infra.local.redis_server import RedisServer
from infra.local.stack import OLD_VERSION
from shared.settings import REPOSITORY
from tests.integration.command_line import START_TIMEOUT_S, CommandLine, wait_for
from tests.integration.conftest import S3Location


@pytest.fixture
def granule(tmp_path: Path, small_models: Path) -> Iterator[CommandLine]:
    command_line = CommandLine(tmp_path, small_models)
    yield command_line
    for process in command_line.alive():
        process.kill()


def order(url: str) -> Any:
    """Order a tile by the version id that callers have in their code, and wait until it is finished."""
    body = {"version": OLD_VERSION, "input": {"prompt": "50% red, 30% black, 20% pearl", "seed": 7}}
    made = requests.post(f"{url}/v1/predictions", json=body, timeout=10)
    assert made.status_code == 201, made.text
    deadline = time.monotonic() + 60
    while (found := requests.get(made.json()["urls"]["get"], timeout=10).json())["status"] in ("starting", "processing"):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert found["status"] == "succeeded", found["error"]
    return found


def test_a_killed_supervisor_leaves_nothing_running_and_loses_nothing(granule: CommandLine) -> None:
    process, url = granule.up()
    made = order(url)
    names = {child.name() for child in granule.alive()}
    assert len(granule.alive()) >= 8, names  # supervisor, Redis, S3, guardian, worker, courier, API and its two workers
    if sys.platform == "linux":
        process.kill()
        process.wait()
        # The render worker notices its guardian's end with its next ping.
        wait_for(lambda: not granule.alive(), timeout_s=20)

    process, url = granule.up()
    found = requests.get(f"{url}/v1/predictions/{made['id']}", timeout=10).json()
    assert found["status"] == "succeeded"
    path = found["output"].partition("/v1/")[2]
    picture = requests.get(f"{url}/v1/{path}", timeout=10)
    assert picture.headers["Content-Type"] == "image/png" and len(picture.content) > 1000

    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert granule.shown() == f"ready {url}\n"
    wait_for(lambda: not granule.alive(), timeout_s=10)


def test_servers_that_are_named_are_used_and_none_is_started(
    granule: CommandLine, redis_url: str, redis_server: RedisServer, s3: S3Location
) -> None:
    process, url = granule.up(
        REDIS_URL=redis_url,
        S3_ENDPOINT_URL=s3.endpoint_url,
        GRANULE_S3_BUCKET=f"{s3.bucket}-new",
        GRANULE_S3_ACCESS_KEY_ID=s3.access_key_id,
        GRANULE_S3_SECRET_ACCESS_KEY=s3.secret_access_key,
    )
    order(url)
    commands = " ".join(word for child in granule.alive() for word in child.cmdline())
    assert "valkey-server" not in commands and "weed" not in commands
    assert redis_server.is_ready()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0


def test_the_demo_leaves_a_picture_and_nothing_else(granule: CommandLine) -> None:
    process = granule.start("demo")
    assert process.wait(timeout=START_TIMEOUT_S) == 0, granule.said()
    with Image.open(granule.folder / "out/tile.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (256, 256))
    assert "out/tile.png" in granule.shown() and "50.0 % ordered" in granule.shown()
    assert list((granule.folder / "data").iterdir()) == []


def test_weights_that_are_not_there_end_it_with_the_reason(granule: CommandLine) -> None:
    process = granule.start("demo", GRANULE_MODELS_DIR=str(REPOSITORY / "models"), GRANULE_WEIGHTS_DIR="/nonexistent")
    assert process.wait(timeout=START_TIMEOUT_S) == 1
    assert granule.shown() == ""
    assert "/nonexistent/mini/rubber-tile-mini_sdxl_lora.safetensors does not exist" in granule.said()
    wait_for(lambda: not granule.alive(), timeout_s=10)
