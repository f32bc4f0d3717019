"""The `granule` commands as processes, against a real API, Redis, S3, and workers whose pipeline is a stand-in."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from infra.local.ports import free_block
from shared.settings import REPOSITORY, Settings
from tests.integration.conftest import S3Location
from tests.integration.processes import APP, Processes, api_server, environment, wait_until

GPUS = ("GPU-8f2e3b1c-0000-4e5f-9a3b-1c2d3e4f5a6b", "GPU-1a2b3c4d-1111-4e5f-9a3b-1c2d3e4f5a6b")
SLOW = "100% red, 0.4 s a step"


@dataclass
class House:
    """An installation, and the commands that are given to it."""

    settings: Settings
    folder: Path
    url: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    def environ(self) -> dict[str, str]:
        return environment(self.settings, GRANULE_CLIENT_URL=self.url, PYTHONPATH=str(REPOSITORY), **self.extra)

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "cli.main", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environ(), cwd=self.folder, stdout=pipe, stderr=pipe, text=True)

    def ask(self, path: str) -> Any:
        """What the API says, without a process for every question."""
        return httpx.get(f"{self.url}/v1/{path}", timeout=10).json()

    def statuses(self) -> list[str]:
        return [made["status"] for made in self.ask("predictions")["results"]]

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        stdout, stderr = process.communicate(timeout=60)
        return process.returncode, stdout, stderr


@pytest.fixture
def settings(redis_url: str, s3: S3Location, tmp_path: Path) -> Settings:
    served = Settings(redis_url=redis_url, lease_s=3, heartbeat_s=0.5, grace_s=5, data_dir=tmp_path / "data")
    return s3.settings(served)


@pytest.fixture
def house(settings: Settings, tmp_path: Path) -> Iterator[House]:
    with api_server(settings, tmp_path) as url:
        yield House(settings, tmp_path, url)


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[None]:
    processes = Processes(settings, tmp_path)
    processes.guardian()
    yield
    processes.stop()


@pytest.mark.usefixtures("worker")
def test_an_order_becomes_a_file_and_can_be_looked_at(house: House) -> None:
    status, shown, said = house.run("render", "50% red, 50% black", "--seed", "7", "-o", "tiles/tile.jpg")
    assert (status, shown.splitlines()[0]) == (0, "tiles/tile.jpg"), said
    assert "seed      7" in shown and "status    succeeded" in shown
    with Image.open(house.folder / "tiles/tile.jpg") as picture:
        assert picture.format == "JPEG"

    # then: it is listed, shown, and saved again under its own name
    [made] = [json.loads(line) for line in house.run("jobs", "--json")[1].splitlines()]
    assert made["status"] == "succeeded" and made["input"]["output_format"] == "jpg"
    assert made["id"] in house.run("jobs", "--status", "succeeded")[1]
    assert house.run("jobs", "--status", "failed")[2] == "there are none such\n"
    status, shown, _ = house.run("show", made["id"], "-o", "./", "--json")
    [own] = json.loads(shown)["files"]
    assert status == 0 and (house.folder / own).name.endswith("_50red-50black_seed7.jpg")
    assert (house.folder / own).read_bytes() == (house.folder / "tiles/tile.jpg").read_bytes()
    assert house.run("show", made["id"], "--logs")[1].startswith("Using seed: 7\n")
    assert house.run("deliveries", made["id"])[::2] == (0, "there are none\n")
    assert house.run("cancel", made["id"]) == (0, f"{made['id']} had succeeded already\n", "")

    # then: the worker, the model, and an installation that is well
    [listed] = [json.loads(line) for line in house.run("workers", "--json")[1].splitlines()]
    assert (listed["model"], listed["device"], listed["state"]) == ("granule/rubber-tile-mini", "stand-in", "idle")
    assert "granule/rubber-tile-mini\t1\t1\t" in house.run("models")[1]
    status, shown, _ = house.run("doctor", "--quick", "--json")
    findings = [json.loads(line) for line in shown.splitlines()]
    assert status == 0, findings
    assert {"redis", "s3", "models", "api", "token", "clock"} <= {f["subject"] for f in findings if f["level"] == "ok"}

    # then: the worker is drained, and takes jobs again
    assert house.run("workers", "drain")[::2] == (
        2,
        "granule: drain needs the NAME of a worker, as granule workers lists them\n",
    )
    assert "no worker 'nobody' shows itself" in house.run("workers", "drain", "nobody")[2]
    status, shown, _ = house.run("workers", "drain", listed["name"], "--wait", "--json")
    assert (status, json.loads(shown)["state"], alive(house)) == (0, "drained", set())
    assert json.loads(house.run("workers", "resume", listed["name"], "--json")[1])["state"] == "starting"
    wait_until(lambda: alive(house) == {listed["name"]}, timeout_s=120)


def test_what_is_refused_is_said_with_a_status_of_its_own(house: House, tmp_path: Path) -> None:
    assert house.run("show", "nothing") == (1, "", "granule: no prediction 'nothing' (404 not_found)\n")
    status, shown, said = house.run("render", "60% red", "-o", "tile.png", "--json")
    assert (status, shown) == (2, "") and said.startswith("granule: input.prompt: ")
    assert house.run("render", "100% red", "-i", "seed=x", "-o", "t.png")[0] == 2
    status, _, said = house.run("render", "100% red", "-o", "t.png", "--timeout", "0.5")
    assert status == 1 and "waiting; no worker serves its model" in said and "it goes on: granule show" in said
    assert house.run("workers")[2] == "no worker is alive\n1 jobs wait for granule/rubber-tile-mini, which no worker serves\n"
    [waiting] = [json.loads(line)["id"] for line in house.run("jobs", "--json")[1].splitlines()]
    status, shown, said = house.run("cancel", "nothing", waiting)
    assert (status, shown) == (1, f"{waiting} is canceled\n") and "no prediction 'nothing'" in said
    assert house.run("show", waiting, "--wait")[0] == 1
    assert not list(tmp_path.glob("*.png"))


def test_a_token_is_asked_for_where_one_is_needed(settings: Settings, tmp_path: Path) -> None:
    with api_server(settings, tmp_path, GRANULE_API_TOKENS="shop:s3cret") as url:
        shop = House(settings, tmp_path, url)
        status, shown, said = shop.run("jobs")
        assert (status, shown) == (1, "") and "GRANULE_CLIENT_TOKEN" in said
        shop.extra["GRANULE_CLIENT_TOKEN"] = "s3cret"
        assert shop.run("jobs")[::2] == (0, "there are none\n")
        # What an operator alone may see is replaced by what everybody may.
        status, shown, said = shop.run("workers")
        assert status == 0 and "granule/rubber-tile-mini\t0" in shown and "scope admin" in said
        status, _, said = shop.run("deliveries")
        assert status == 1 and "403" in said


@pytest.mark.usefixtures("worker")
def test_ctrl_c_offers_to_call_the_job_off(house: House) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(house.folder)
        words = [sys.executable, "-m", "cli.main", "render", SLOW, "-o", "tile.png"]
        os.execve(sys.executable, words, house.environ() | {"TERM": "xterm", "COLUMNS": "120"})
    seen = ""

    def reads(text: str) -> bool:
        nonlocal seen
        if select.select([terminal], [], [], 0)[0]:
            seen += os.read(terminal, 65_536).decode(errors="replace")
        return text in seen

    wait_until(lambda: reads("step 1 of"))
    os.write(terminal, b"\x03")
    wait_until(lambda: reads("off? [y/N]"))
    os.write(terminal, b"y\n")
    wait_until(lambda: reads("called off"))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    os.close(terminal)
    wait_until(lambda: house.statuses() == ["canceled"])
    assert not (house.folder / "tile.png").exists()


@pytest.mark.usefixtures("worker")
def test_an_interrupt_without_a_person_leaves_the_job_alone_and_a_restart_of_the_api_is_waited_for(
    settings: Settings, tmp_path: Path
) -> None:
    port = free_block(1)[0]
    arguments = ["-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--threads", "8", "api.server:create_app()"]

    def serve() -> subprocess.Popen[bytes]:
        log = subprocess.DEVNULL
        api = subprocess.Popen([sys.executable, *arguments], env=environment(settings), stdout=log, stderr=log)
        stack.callback(end, api)
        wait_until(lambda: _answers(port))
        return api

    house = House(settings, tmp_path, f"http://127.0.0.1:{port}")
    with ExitStack() as stack:
        api = serve()
        left = house.start("render", SLOW, "-o", "left.png")
        wait_until(lambda: house.statuses() == ["processing"])
        left.send_signal(signal.SIGINT)
        assert "goes on. granule show" in left.communicate(timeout=30)[1] and left.returncode == 130
        waiting = house.start("render", SLOW, "-o", "tile.png")
        wait_until(lambda: len(house.statuses()) == 2)
        api.terminate()
        api.wait(timeout=30)
        time.sleep(1)
        serve()
        said = waiting.communicate(timeout=60)[1]
        assert waiting.returncode == 0, said
        assert (house.folder / "tile.png").exists()
        assert house.statuses() == ["succeeded", "succeeded"]


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_worker_for_each_gpu_is_pinned_restarted_and_drained(house: House, tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    lines = "\n".join(f"GPU {index}: Stand-in (UUID: {uuid})" for index, uuid in enumerate(GPUS))
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
    tool.chmod(0o755)
    house.extra["PATH"] = f"{tool.parent}:{os.environ['PATH']}"
    with (tmp_path / "work.log").open("wb") as log:
        # The name that lists workers runs them too.
        command = [sys.executable, "-m", "cli.main", "workers", "--gpus", "1,0", "--app", APP]
        crew = subprocess.Popen(command, env=house.environ(), cwd=REPOSITORY, stderr=log)
    try:
        wait_until(lambda: len(alive(house)) == 2, timeout_s=60)
        guardians = {process.environ()["CUDA_VISIBLE_DEVICES"]: process for process in psutil.Process(crew.pid).children()}
        assert set(guardians) == set(GPUS)
        for process in guardians.values():
            [drawing] = process.children()
            assert drawing.environ()["CUDA_VISIBLE_DEVICES"] == process.environ()["CUDA_VISIBLE_DEVICES"]
            assert drawing.environ()["GRANULE_DEVICE"] == "cuda"

        # A guardian that is killed takes its worker with it, and both come back; the other goes on.
        before = alive(house)
        guardians[GPUS[0]].kill()
        wait_until(lambda: len(alive(house) - before) == 1 and len(alive(house)) == 2, timeout_s=60)
        assert len(alive(house) & before) == 1

        # A drain lets each finish what it draws.
        drawn = [house.start("render", SLOW, "-o", f"{index}.png") for index in range(2)]
        wait_until(lambda: house.statuses() == ["processing", "processing"])
        crew.send_signal(signal.SIGTERM)
        assert crew.wait(timeout=60) == 0
        assert [(process.communicate(timeout=30), process.returncode)[1] for process in drawn] == [0, 0]
        assert alive(house) == set()
    finally:
        for process in psutil.Process(crew.pid).children(recursive=True) if crew.poll() is None else []:
            process.kill()
        end(crew)
    told = (tmp_path / "work.log").read_text()
    assert f"gpu0: granule/rubber-tile-mini on Stand-in, {GPUS[0]}" in told
    assert "gpu0    | ended with status -9; starts again in 1 s" in told
    assert "gpu1    | " in told and "is ready on stand-in" in told


def alive(house: House) -> set[str]:
    return {worker["name"] for worker in house.ask("overview")["workers"] if worker["state"] in ("idle", "busy")}
