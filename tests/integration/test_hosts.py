"""API, Redis, storage, a courier and two render workers, each on a host of its own; then a cable is pulled."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import SecretStr

from infra.local.ports import free_block
from infra.local.redis_server import find_redis_server
from infra.local.s3_server import PORT_COUNT, S3Server
from shared.job_store import connect_store
from shared.jobs import Job, Status
from shared.queue import DELIVER_QUEUE
from shared.redis_client import connect
from shared.settings import REPOSITORY, Settings
from shared.storage import connect_storage
from tests.integration.hosts import Network, why_no_hosts
from tests.integration.processes import APP, environment, wait_until

MODEL = "granule/rubber-tile-mini"
LEASE_S = 3.0
NAMES = ("redis", "s3", "api", "courier", "render-a", "render-b", "shop")
WHY_NOT = why_no_hosts()

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


class Rack:
    """Everything on hosts of its own; `shop` is where the test orders and looks from."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.hosts = {name: network.host(name) for name in NAMES}
        password, token = secrets.token_hex(8), secrets.token_hex(8)
        s3 = S3Server(
            directory=folder / "s3",
            ports=free_block(PORT_COUNT),
            bucket="granule",
            access_key_id=secrets.token_hex(10),
            secret_access_key=secrets.token_hex(20),
        )
        self.settings = Settings(
            redis_url=f"redis://:{password}@{self.hosts['redis'].address}:6379/0",
            s3_endpoint_url=f"http://{self.hosts['s3'].address}:{s3.ports[0]}",
            s3_bucket=s3.bucket,
            s3_access_key_id=SecretStr(s3.access_key_id),
            s3_secret_access_key=SecretStr(s3.secret_access_key),
            lease_s=LEASE_S,
            heartbeat_s=0.5,
        )
        self._start_servers(folder, password, s3)
        python = [sys.executable, "-m"]
        environ = environment(self.settings, GRANULE_API_TOKENS=f"shop:{token}", PYTHONPATH=str(REPOSITORY))
        api = ["--config", "python:api.serving", "--bind", f"{self.hosts['api'].address}:8000", "api.server:create_app()"]
        self.hosts["api"].start([*python, "gunicorn", *api], environ)
        courier = [
            "--app",
            APP,
            "worker",
            "-P",
            "threads",
            "-c",
            "2",
            "-Q",
            DELIVER_QUEUE,
            "--without-gossip",
            "--without-mingle",
        ]
        self.hosts["courier"].start([*python, "celery", *courier, "--without-heartbeat"], environ)
        self.guardians = {
            name: self.hosts[name].start([*python, "worker.guardian", "--app", APP], environ)
            for name in ("render-a", "render-b")
        }
        self._url = f"http://{self.hosts['api'].address}:8000"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._store = connect_store(self.settings, connect(self.settings.redis_url, timeout_s=5))
        self._storage = connect_storage(self.settings)
        wait_until(lambda: self.ready_workers() == 2, timeout_s=90)

    def _start_servers(self, folder: Path, password: str, s3: S3Server) -> None:
        (folder / "redis").mkdir()
        config = (REPOSITORY / "infra" / "redis.conf").read_text().replace("dir /data", f"dir {folder}/redis")
        (folder / "redis.conf").write_text(f"{config}bind 0.0.0.0\nrequirepass {password}\n")
        self.hosts["redis"].start([find_redis_server(os.environ["PATH"]), str(folder / "redis.conf")], {"LC_ALL": "C"})
        program = s3.program(os.environ)
        host = self.hosts["s3"]
        host.start([argument.replace("127.0.0.1", host.address) for argument in program.command], program.env)

    def ready_workers(self) -> int:
        try:
            answer = self.hosts["shop"].call(lambda: httpx.get(f"{self._url}/readyz", timeout=5))
        except httpx.TransportError:
            return 0
        found: int = answer.json()["workers"][MODEL]
        return found if answer.json()["storage"] == "ok" else 0

    def order(self, step_s: float) -> str:
        body = {"version": MODEL, "input": {"prompt": f"50% red, 50% black, {step_s} s a step"}}
        answer = self.hosts["shop"].call(
            lambda: httpx.post(f"{self._url}/v1/predictions", json=body, headers=self._headers, timeout=10)
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> Job:
        return self.hosts["shop"].call(lambda: self._store.get(job_id))

    def ended(self, job_id: str) -> Job:
        wait_until(lambda: self.job(job_id).status.is_terminal, timeout_s=60)
        return self.job(job_id)

    def pictures(self, job_id: str) -> list[str]:
        return self.hosts["shop"].call(lambda: self._storage.keys(f"outputs/{job_id}/"))

    def worker_of(self, name: str) -> psutil.Process:
        return psutil.Process(self.guardians[name].pid).children()[0]

    def drawn_by(self, job_id: str) -> str | None:
        """The host that draws an order that was just made."""
        wait_until(lambda: self.job(job_id).status is not Status.QUEUED)
        return self.holder(self.job(job_id))

    def has_said(self, name: str, words: str) -> bool:
        return any(words in log.read_text() for log in self.hosts[name].folder.glob(f"{name}-*.log"))

    def holder(self, job: Job) -> str | None:
        """The host whose guardian named the worker that holds a job."""
        for name, guardian in self.guardians.items():
            if job.worker is not None and f"-{guardian.pid}-" in job.worker:
                return name
        return None


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    folder = tmp_path_factory.mktemp("hosts")
    network = Network(folder)
    try:
        yield Rack(network, folder)
    finally:
        network.close()


def test_jobs_spread_over_the_hosts(rack: Rack) -> None:
    jobs = [rack.order(0.3) for _ in range(4)]
    holders = set()

    def all_ended() -> bool:
        found = [rack.job(job_id) for job_id in jobs]
        holders.update(rack.holder(job) for job in found if job.status is Status.RUNNING)
        return all(job.status.is_terminal for job in found)

    wait_until(all_ended, timeout_s=60)
    assert {rack.job(job_id).status for job_id in jobs} == {Status.SUCCEEDED}
    assert holders == {"render-a", "render-b"}


def test_a_cut_hosts_job_moves_and_the_host_comes_back_without_harm(rack: Rack) -> None:
    job_id = rack.order(0.8)
    wait_until(lambda: rack.job(job_id).step >= 1)
    cut = rack.holder(rack.job(job_id))
    assert cut is not None
    other = "render-b" if cut == "render-a" else "render-a"
    before = rack.worker_of(cut).pid
    rack.hosts[cut].cut()
    moved_s = wait_until(lambda: rack.holder(rack.job(job_id)) == other)
    # The lease, one look of the sweep a second, and the message's way.
    assert moved_s < LEASE_S + 4
    job = rack.ended(job_id)
    assert (job.status, job.fence, job.crashes) == (Status.SUCCEEDED, 2, 1)
    assert rack.ready_workers() == 1
    rack.hosts[cut].mend()
    wait_until(lambda: rack.ready_workers() == 2, timeout_s=60)
    # What it drew meanwhile is refused and removed: what is left is the picture of the attempt that ended the job.
    assert job.result is not None
    published = [file.key for file in job.result.files]
    wait_until(lambda: rack.has_said(cut, "refused") or rack.has_said(cut, "given to another worker"), timeout_s=60)
    wait_until(lambda: rack.pictures(job_id) == published)
    assert rack.job(job_id) == job
    # It is the same process as before, and it draws again.
    assert rack.worker_of(cut).pid == before
    wait_until(lambda: rack.drawn_by(rack.order(0.1)) == cut, timeout_s=60)


def test_a_slow_line_costs_time_and_nothing_else(rack: Rack) -> None:
    for name in ("render-a", "render-b"):
        rack.hosts[name].slow_down("64kbit")
    job = rack.ended(rack.order(0.1))
    assert (job.status, job.fence, job.crashes) == (Status.SUCCEEDED, 1, 0)
    # Half a second of drawing; the picture of 12 kB takes the line more than another.
    assert job.completed_ms is not None and job.started_ms is not None
    assert job.completed_ms - job.started_ms > 1500
