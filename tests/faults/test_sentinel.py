"""Redis behind Sentinels: its master is killed, a replica takes over, and jobs go on."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from infra.local.ports import free_block
from infra.local.redis_server import find_redis_server
from infra.local.s3_server import PORT_COUNT, S3Server
from shared.errors import StoreUnavailable
from shared.job_store import JobStore, connect_store
from shared.jobs import Lane, RenderSpec, Status
from shared.queue import enqueue_render, make_celery
from shared.redis_client import connect
from shared.settings import Settings
from shared.worker_registry import connect_workers
from tests.contracts.jobs import MODEL, new_spec
from tests.faults.system import Server
from tests.integration.processes import Processes, wait_until

NAME = "tiles"
PASSWORD = "sentinel-test"
DOWN_AFTER_MS = 2000


class Watched:
    """A master, its replica, and three Sentinels that must agree by two."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.master, self.replica, *self.sentinels = free_block(5)
        common = f'bind 127.0.0.1\nrequirepass {PASSWORD}\nmasterauth {PASSWORD}\nappendonly yes\nsave ""\n'
        self._start(self.master, common)
        self._start(self.replica, f"{common}replicaof 127.0.0.1 {self.master}\n")
        wait_until(lambda: self.info(self.replica).get("master_link_status") == "up")
        watch = (
            f"bind 127.0.0.1\nsentinel monitor {NAME} 127.0.0.1 {self.master} 2\nsentinel auth-pass {NAME} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\nsentinel failover-timeout {NAME} 10000\n"
        )
        for port in self.sentinels:
            self._start(port, watch, "--sentinel")
        wait_until(lambda: all(self.knows_all(port) for port in self.sentinels))

    def _start(self, port: int, configuration: str, *options: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir()
        (folder / "server.conf").write_text(f"port {port}\ndir {folder}\n{configuration}")
        with (folder / "log").open("wb") as log:
            command = [find_redis_server(os.environ["PATH"]), str(folder / "server.conf"), *options]
            self._processes[port] = subprocess.Popen(command, env={"LC_ALL": "C"}, stdout=log, stderr=log)
        wait_until(lambda: self.answers(port))

    def answers(self, port: int) -> bool:
        try:
            return bool(self.info(port))
        except redis.ConnectionError:
            return False

    def info(self, port: int) -> dict[str, object]:
        password = None if port in self.sentinels else PASSWORD
        with redis.Redis(port=port, password=password, decode_responses=True) as client:
            return dict(client.info())

    def knows_all(self, port: int) -> bool:
        with redis.Redis(port=port, decode_responses=True) as client:
            state = client.sentinel_master(NAME)
            return state["num-other-sentinels"] == len(self.sentinels) - 1 and state["num-slaves"] == 1

    def kill_master(self) -> None:
        self._processes[self.master].kill()

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    servers = Watched(tmp_path)
    yield servers
    servers.stop()


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    server = S3Server(
        directory=tmp_path / "s3",
        ports=free_block(PORT_COUNT),
        bucket="granule",
        access_key_id=secrets.token_hex(10),
        secret_access_key=secrets.token_hex(20),
    )
    running = Server(server.program(os.environ), tmp_path)
    running.start()
    yield server
    running.kill()


@pytest.mark.long
def test_a_failover_costs_seconds_and_no_job(watched: Watched, s3: S3Server, tmp_path: Path) -> None:
    settings = Settings(
        redis_url=f"redis://:{PASSWORD}@{NAME}/0",
        redis_sentinels=tuple(f"127.0.0.1:{port}" for port in watched.sentinels),
        s3_endpoint_url=s3.endpoint_url,
        s3_bucket=s3.bucket,
        s3_access_key_id=SecretStr(s3.access_key_id),
        s3_secret_access_key=SecretStr(s3.secret_access_key),
        heartbeat_s=1,
    )
    client = connect(settings.redis_url, timeout_s=2, sentinels=settings.redis_sentinels)
    store, workers, celery = connect_store(settings, client), connect_workers(settings, client), make_celery(settings)
    processes = Processes(settings, tmp_path, {"STANDIN_STEP_S": "0.5"})
    try:
        processes.courier()
        processes.guardian()
        wait_until(workers.alive, timeout_s=120)
        assert ended(store, submit(store, celery)) == 1
        running = submit(store, celery)
        waiting = submit(store, celery)
        wait_until(lambda: store.get(running).step >= 1)
        # What the replica has not got yet would be lost with the master.
        wait_until(lambda: client.wait(1, 1000) >= 1)
        watched.kill_master()
        wait_until(lambda: watched.info(watched.replica)["role"] == "master", timeout_s=60)
        assert (ended(store, running), ended(store, waiting)) == (1, 1)
        assert ended(store, submit(store, celery)) == 1
    finally:
        processes.stop()


def submit(store: JobStore, celery: object) -> str:
    render = RenderSpec("50% red, 50% black", None, 42, 5, 7.0, 64, 64, "png", 90)
    job_id = store.create(new_spec(render=render), body_hash="h", queue_max_jobs=100).job_id
    enqueue_render(celery, job_id, model=MODEL, lane=Lane.NORMAL)  # type: ignore[arg-type]
    return job_id


def ended(store: JobStore, job_id: str) -> int:
    """Wait until a job has succeeded, and return how many attempts that took."""
    wait_until(lambda: has_ended(store, job_id), timeout_s=60)
    job = store.get(job_id)
    assert job.status is Status.SUCCEEDED
    return job.fence


def has_ended(store: JobStore, job_id: str) -> bool:
    """While nobody is the master, nobody knows."""
    try:
        return store.get(job_id).status.is_terminal
    except StoreUnavailable:
        return False
