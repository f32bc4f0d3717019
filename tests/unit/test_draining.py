"""Drained workers: what the register says of them, and what their guardian does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import fakeredis
import httpx
import pytest
from redis import Redis

from infra.local.ports import free_block
from shared.errors import NotFound
from shared.job_store import JobStore
from shared.queue import make_celery
from shared.settings import REPOSITORY, Settings
from shared.worker_registry import DeviceMemory, Standing, WorkerInfo, WorkerRegistry, connect_workers
from worker.guardian import Guardian

SETTINGS = Settings(redis_prefix="test:", lease_s=3, heartbeat_s=0.2, grace_s=20)

READY_UNTIL_TOLD = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
open(sys.argv[1], "a").write("started\\n")
os.write(int(os.environ["GRANULE_PULSE_FD"]), b'{"kind": "ready", "device": "GPU"}\\n')
memory = b'{"kind": "memory", "free_bytes": 60, "total_bytes": 80, "peak_bytes": 12}\\n'
os.write(int(os.environ["GRANULE_PULSE_FD"]), memory)
signal.pause()
"""
IGNORES_IT = READY_UNTIL_TOLD.replace("lambda *_: os._exit(0)", "signal.SIG_IGN")


@pytest.fixture
def redis() -> Redis:
    return fakeredis.FakeRedis(decode_responses=True)


@pytest.fixture
def workers(redis: Redis) -> WorkerRegistry:
    return connect_workers(SETTINGS, redis)


def wait_for(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.02)
    return found


class Watched:
    """A guardian in a thread, whose worker does nothing but wait for the end."""

    def __init__(self, redis: Redis, workers: WorkerRegistry, log: Any, program: str, settings: Settings = SETTINGS) -> None:
        store = JobStore(redis, prefix="test:", retention_s=3600, lease_s=3, max_attempts=3)
        command = [sys.executable, "-c", program, str(log)]
        celery = make_celery(settings)
        self.guardian = Guardian(command, settings=settings, store=store, workers=workers, celery=celery)
        self.workers, self.log = workers, log
        self.thread = threading.Thread(target=self.guardian.run)

    def __enter__(self) -> Watched:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.guardian.stop()
        self.thread.join(30)

    def standing(self) -> Standing | None:
        found = self.workers.everybody()
        return found[0].standing if found else None

    @property
    def starts(self) -> int:
        return self.log.read_text().count("started") if self.log.exists() else 0


def test_a_drained_worker_ends_and_another_starts_when_it_is_resumed(
    redis: Redis, workers: WorkerRegistry, tmp_path: Any
) -> None:
    with Watched(redis, workers, tmp_path / "log", READY_UNTIL_TOLD) as watched:
        [info] = wait_for(workers.alive)
        assert (info.device, info.standing) == ("GPU", Standing.READY)
        wait_for(lambda: workers.alive()[0].memory == DeviceMemory(60, 80, 12))
        workers.drain(info.name)
        wait_for(lambda: watched.standing() is Standing.DRAINED)
        assert workers.alive() == [] and watched.starts == 1
        [resting] = workers.everybody()
        assert (resting.name, resting.device) == (info.name, "GPU")
        workers.resume(info.name)
        [again] = wait_for(workers.alive)
        assert (again.name, watched.starts) == (info.name, 2)
    assert workers.everybody() == [] and redis.keys("test:drain:*") == []


def test_a_drained_worker_stays_drained_while_nobody_resumes_it(redis: Redis, workers: WorkerRegistry, tmp_path: Any) -> None:
    with Watched(redis, workers, tmp_path / "log", READY_UNTIL_TOLD) as watched:
        [info] = wait_for(workers.alive)
        workers.drain(info.name)
        wait_for(lambda: watched.standing() is Standing.DRAINED)
        seen_s = [one.silence_s for _ in range(20) for one in workers.everybody() if not time.sleep(0.05)]
        assert len(seen_s) == 20 and watched.starts == 1


def test_a_drained_worker_is_not_ready_and_its_container_is_well(redis: Redis, workers: WorkerRegistry, tmp_path: Any) -> None:
    [port] = free_block(1)
    dockerfile = (REPOSITORY / "infra" / "Dockerfile.worker").read_text()
    [check] = [line for line in dockerfile.splitlines() if line.strip().startswith('CMD ["python", "-c"')]
    command = [sys.executable, *json.loads(check.strip().removeprefix("CMD "))[1:]]
    command[-1] = command[-1].replace("9100", str(port))

    def is_healthy() -> bool:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    open_port = SETTINGS.model_copy(update={"metrics_port": port})
    with Watched(redis, workers, tmp_path / "log", READY_UNTIL_TOLD, open_port):
        [info] = wait_for(workers.alive)
        assert not is_healthy(), "the stand-in shows no metrics"
        workers.drain(info.name)
        wait_for(is_healthy)
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 503
        workers.resume(info.name)
        wait_for(workers.alive)
        assert not is_healthy(), "the port is the next worker's"


def test_a_worker_that_does_not_end_though_it_holds_nothing_is_killed(
    redis: Redis, workers: WorkerRegistry, tmp_path: Any
) -> None:
    hasty = SETTINGS.model_copy(update={"grace_s": 0.5})
    with Watched(redis, workers, tmp_path / "log", IGNORES_IT, hasty) as watched:
        [info] = wait_for(workers.alive)
        workers.drain(info.name)
        wait_for(lambda: watched.standing() is Standing.DRAINED)


def test_a_worker_that_does_not_get_ready_is_seen_between_its_starts_and_can_be_drained(
    redis: Redis, workers: WorkerRegistry, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Guardian._pause
    monkeypatch.setattr(Guardian, "_pause", lambda self, seconds: pause(self, 600.0))
    monkeypatch.setattr(Guardian, "_watch", lambda self, child: child.process.wait())
    with Watched(redis, workers, tmp_path / "log", "import sys; sys.exit(1)") as watched:
        [info] = wait_for(workers.everybody)
        assert info.standing is Standing.STARTING
        workers.drain(info.name)
        wait_for(lambda: watched.standing() is Standing.DRAINED)


def test_an_operators_word_counts_before_the_worker_has_heard_it(workers: WorkerRegistry) -> None:
    workers.beat(WorkerInfo("w", "m", "cpu"))
    assert [info.standing for info in workers.everybody()] == [Standing.READY]
    workers.drain("w")
    assert [info.standing for info in workers.everybody()] == [Standing.DRAINING]
    assert workers.beat(WorkerInfo("w", "m", "cpu", standing=Standing.DRAINED)) is True
    assert workers.alive() == [] and [info.standing for info in workers.everybody()] == [Standing.DRAINED]
    workers.resume("w")
    assert [info.standing for info in workers.everybody()] == [Standing.STARTING]
    assert workers.beat(WorkerInfo("w", "m", "cpu")) is False
    assert [info.name for info in workers.alive()] == ["w"]
    with pytest.raises(NotFound, match="'x'"):
        workers.drain("x")


def test_a_worker_of_an_older_version_is_one_that_takes_jobs(redis: Redis, workers: WorkerRegistry) -> None:
    redis.hset("test:worker:old", mapping={"model": "m", "device": "cpu", "busy_s": 3, "starved_s": 1})
    redis.sadd("test:workers", "old")
    [info] = workers.everybody()
    assert (info.standing, info.duty, info.memory) == (Standing.READY, 0.75, None)


def test_a_worker_of_a_newer_version_can_say_more_than_is_known(redis: Redis, workers: WorkerRegistry) -> None:
    memory = '{"free_bytes": 1, "total_bytes": 3, "peak_bytes": 2, "reserved_bytes": 2}'
    said = {"model": "m", "device": "cpu", "standing": "pondering", "memory": memory, "mood": "good"}
    redis.hset("test:worker:new", mapping=said)
    redis.sadd("test:workers:resting", "new")
    [info] = workers.everybody()
    assert (info.standing, info.memory) == (Standing.STARTING, DeviceMemory(1, 3, 2))
