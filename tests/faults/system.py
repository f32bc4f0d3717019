"""The whole of Granule in processes of its own, on servers of its own, with a proxy before each server.

Only the pipeline is a stand-in that sleeps. What clients of this system are told is kept as a history.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests
from pydantic import SecretStr

from infra.local.ports import free_block
from infra.local.process import Process, Program
from infra.local.redis_server import RedisServer
from infra.local.s3_server import PORT_COUNT, S3Server
from shared.job_store import JobStore, connect_store
from shared.jobs import Job
from shared.outbox import Outbox
from shared.queue import message_lists
from shared.redis_client import connect
from shared.settings import Settings
from shared.storage import Storage, connect_storage
from shared.worker_registry import WorkerInfo, connect_workers
from tests.contracts.jobs import MODEL
from tests.faults.history import Accepted, Delivery, Ending, Happening, Record, Seen
from tests.faults.proxy import Mode, Proxy
from tests.faults.receiver import Receiver
from tests.integration.processes import Processes, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of a test secret").decode()
CLIENT_TIMEOUT_S = 10.0


class Server:
    """One of the servers behind the system. Start it from the main thread: it ends with the thread that started it."""

    def __init__(self, program: Program, folder: Path) -> None:
        self._program = program
        self._log = folder / f"{program.name}.log"
        self._process: Process | None = None

    def start(self) -> None:
        """Start it, and return when it serves."""
        self._process = Process(self._program, self._log, lambda name, line: None)
        assert self._program.ready is not None
        wait_until(self._program.ready, timeout_s=60)

    def kill(self) -> None:
        """SIGKILL, and wait for its death."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def freeze(self) -> None:
        """Stop it where it is."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


class System:
    """Redis, S3, proxies, receiver; and on demand API, couriers and guardians. `changes` are settings other than the usual."""

    def __init__(self, folder: Path, *, appendfsync: str = "always", **changes: Any) -> None:
        redis = RedisServer(
            directory=folder / "redis",
            port=free_block(1)[0],
            password=secrets.token_hex(8),
            appendfsync=appendfsync,  # type: ignore[arg-type]
        )
        s3 = S3Server(
            directory=folder / "s3",
            ports=free_block(PORT_COUNT),
            bucket="granule",
            access_key_id=secrets.token_hex(10),
            secret_access_key=secrets.token_hex(20),
        )
        self.redis = Server(redis.program(os.environ), folder)
        self.s3 = Server(s3.program(os.environ), folder)
        self.redis.start()
        self.s3.start()
        self.redis_proxy, self.s3_proxy = Proxy(redis.port), Proxy(s3.ports[0])
        self.receiver = Receiver()
        direct = Settings(redis_url=redis.url, redis_timeout_s=5, **self._common(s3, s3.endpoint_url), **changes)
        self.settings = Settings(
            redis_url=redis.url.replace(f":{redis.port}/", f":{self.redis_proxy.port}/"),
            **self._common(s3, f"http://127.0.0.1:{self.s3_proxy.port}"),
            **changes,
        )
        self.client = connect(direct.redis_url, timeout_s=5)
        self.store: JobStore = connect_store(direct, self.client)
        self.outbox = Outbox(self.client, prefix=direct.redis_prefix)
        self.workers = connect_workers(direct, self.client)
        self.storage: Storage = connect_storage(direct)
        self.processes = Processes(self.settings, folder)
        self.guardians: list[subprocess.Popen[bytes]] = []
        self.couriers: list[subprocess.Popen[bytes]] = []
        self.api: subprocess.Popen[bytes] | None = None
        self.history: list[Happening] = []
        self.webhooks: set[str] = set()
        self.api_url = f"http://127.0.0.1:{free_block(1)[0]}"
        self._local = threading.local()

    @staticmethod
    def _common(s3: S3Server, endpoint_url: str) -> dict[str, Any]:
        return {
            "s3_endpoint_url": endpoint_url,
            "s3_bucket": s3.bucket,
            "s3_access_key_id": SecretStr(s3.access_key_id),
            "s3_secret_access_key": SecretStr(s3.secret_access_key),
            "webhook_secret": SecretStr(SECRET),
            "webhook_allowed_hosts": ("127.0.0.1",),
        }

    # -- processes

    def start_api(self, factory: str = "api.server:create_app()") -> None:
        """Start the API and wait until it answers."""
        address = self.api_url.removeprefix("http://")
        arguments = ["--workers", "1", "--threads", "16", "--worker-class", "gthread", "--no-control-socket"]
        self.api = self.processes._start("api", "-m", "gunicorn", *arguments, "--bind", address, factory)
        wait_until(self.is_up, timeout_s=60)

    def is_up(self) -> bool:
        """Whether the API answers at all."""
        try:
            return self.http.get(f"{self.api_url}/healthz", timeout=2).ok
        except requests.RequestException:
            return False

    def heal(self, *, guardians: int = 2, couriers: int = 1, api: bool = True) -> None:
        """Undo every spoiling, start what is missing of these processes, and wait until all serve."""
        for proxy in (self.redis_proxy, self.s3_proxy):
            if proxy.mode is not Mode.FORWARD:
                proxy.set_mode(Mode.FORWARD)
        self.receiver.reset()
        self.replace_dead(guardians=guardians, couriers=couriers)
        if api and (self.api is None or self.api.poll() is not None):
            self.start_api()
        for guardian in self.guardians:
            self.wait_ready(guardian)

    def replace_dead(self, *, guardians: int, couriers: int) -> None:
        """Start what is missing of these processes."""
        for ours in (self.guardians, self.couriers):
            ours[:] = [process for process in ours if process.poll() is None]
        self.guardians += [self.processes.guardian() for _ in range(guardians - len(self.guardians))]
        self.couriers += [self.processes.courier() for _ in range(couriers - len(self.couriers))]

    def wait_ready(self, guardian: subprocess.Popen[bytes], *, timeout_s: float = 60) -> float:
        """Wait until the guardian's present worker consumes messages; returns the seconds that took."""
        return wait_until(lambda: self._names(guardian, self.workers.alive()), timeout_s=timeout_s)

    def name_of(self, guardian: subprocess.Popen[bytes]) -> str:
        """The name under which a guardian shows its worker, once it does, whether that takes jobs or not."""
        found: list[str] = []
        # One look: the worker is not shown between its process's end and its guardian's next word.
        wait_until(lambda: found.extend(self._names(guardian, self.workers.everybody())) or found)
        return found[0]

    def _names(self, guardian: subprocess.Popen[bytes], among: list[WorkerInfo]) -> list[str]:
        return [info.name for info in among if f"-{guardian.pid}-" in info.name]

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL a process and all of its children, as the loss of a container does."""
        children = psutil.Process(process.pid).children(recursive=True)
        for child in [process, *children]:
            child.kill()
        process.wait()

    def signal(self, process: subprocess.Popen[bytes], signum: int) -> None:
        """Send a signal to a process and all of its children."""
        for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            child.send_signal(signum)

    def holder(self, job_id: str) -> subprocess.Popen[bytes]:
        """The guardian whose worker holds a job, once one does and has made a step."""
        wait_until(lambda: self.store.get(job_id).step >= 1)
        name = self.store.get(job_id).worker or ""
        [found] = [guardian for guardian in self.guardians if f"-{guardian.pid}-" in name]
        return found

    def worker_of(self, guardian: subprocess.Popen[bytes]) -> psutil.Process:
        """The render worker of a guardian."""
        return self.processes.worker_of(guardian)

    def claimed_again(self, job_id: str, *, fence: int = 2, timeout_s: float = 60) -> float:
        """Wait until a job was claimed `fence` times; returns the seconds that took."""
        return wait_until(lambda: self.store.get(job_id).fence >= fence, timeout_s=timeout_s)

    def close(self) -> None:
        """End everything."""
        self.processes.stop()
        self.receiver.down()
        for server in (self.redis, self.s3):
            server.kill()
        for proxy in (self.redis_proxy, self.s3_proxy):
            proxy.close()
        self.client.close()

    # -- as a client

    @property
    def http(self) -> requests.Session:
        """A session of the calling thread."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.trust_env = False
        session: requests.Session = self._local.session
        return session

    def post(self, prompt: str = "50% red, 50% black", *, key: str | None = None, **body: Any) -> requests.Response:
        """Send one order as it stands, with an idempotency key."""
        order = {"version": MODEL, "input": {"prompt": prompt}, **body}
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return self.http.post(f"{self.api_url}/v1/predictions", json=order, headers=headers, timeout=CLIENT_TIMEOUT_S)

    def order(self, prompt: str = "50% red, 50% black", *, webhook: bool = False, patience_s: float = 0.0) -> str:
        """Order until it is acknowledged, for at most `patience_s` after a first failure; returns the job's id."""
        key, deadline_s = uuid.uuid4().hex, time.monotonic() + patience_s
        body = {"webhook": self.receiver.url, "webhook_events_filter": ["completed"]} if webhook else {}
        while True:
            try:
                response = self.post(prompt, key=key, **body)
                response.raise_for_status()
            except requests.RequestException:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)
                continue
            job_id = str(response.json()["id"])
            self.history += [Accepted(key, job_id), Seen(job_id, response.json()["status"])]
            if webhook:
                self.webhooks.add(job_id)
            return job_id

    def read(self, job_id: str) -> str:
        """Read a job through the API, and of a succeeded one what its file is said to be; returns its status on the wire."""
        seen = self.http.get(f"{self.api_url}/v1/predictions/{job_id}", timeout=CLIENT_TIMEOUT_S)
        seen.raise_for_status()
        status, output = seen.json()["status"], seen.json()["output"]
        sha256 = None
        if output:
            file = self.http.get(output, timeout=CLIENT_TIMEOUT_S)
            if file.ok:
                sha256 = hashlib.sha256(file.content).hexdigest()
        self.history.append(Seen(job_id, status, sha256))
        return str(status)

    def cancel(self, job_id: str) -> str:
        """Call a job off; returns the status that the answer shows."""
        answer = self.http.post(f"{self.api_url}/v1/predictions/{job_id}/cancel", timeout=CLIENT_TIMEOUT_S)
        answer.raise_for_status()
        self.history.append(Seen(job_id, answer.json()["status"]))
        return str(answer.json()["status"])

    # -- behind the scenes

    def ended(self, *job_ids: str, timeout_s: float = 60) -> list[Job]:
        """Wait until these jobs have ended; returns their records."""
        wait_until(lambda: all(self.store.get(job_id).status.is_terminal for job_id in job_ids), timeout_s=timeout_s)
        return [self.store.get(job_id) for job_id in job_ids]

    def settled(self, job_id: str, *, timeout_s: float = 30) -> list[str]:
        """Wait until no delivery of a job is pending; returns their states."""
        wait_until(lambda: all(found.state != "pending" for found in self.outbox.of_job(job_id)), timeout_s=timeout_s)
        return [str(found.state) for found in self.outbox.of_job(job_id)]

    def pull_forward(self, index: str = "deliveries:due") -> int:
        """Make everything in an index due now, so that a day's schedule passes in seconds; returns how much that was."""
        name = f"{self.settings.redis_prefix}{index}"
        members = list(self.client.zrange(name, 0, -1))  # type: ignore[arg-type]
        for member in members:
            self.client.zadd(name, {member: 1}, xx=True)
        return len(members)

    def clear_up(self, *, timeout_s: float = 90) -> None:
        """Let the sweep do at once what it would do later: send webhooks again, remove what dead attempts left."""
        wait_until(lambda: not self.pull_forward("leftovers"), timeout_s=timeout_s)
        wait_until(lambda: not self._pending(), timeout_s=timeout_s)

    def _pending(self) -> bool:
        """Whether a webhook is still on its way; the next try of all that wait is then due."""
        self.pull_forward()
        # A receiver that was silent while it was down is otherwise left alone for a minute.
        self.pull_forward("deliveries:receivers")
        time.sleep(0.5)
        return any(delivery.state == "pending" for job in self.jobs() for delivery in self.outbox.of_job(job.id))

    def messages(self) -> int:
        """How many Celery messages about renders wait."""
        return sum(int(self.client.llen(name)) for name in message_lists(MODEL, prefix=self.settings.redis_prefix))  # type: ignore[arg-type]

    def jobs(self) -> list[Job]:
        """Every job on record, newest first."""
        lists = list(self.client.scan_iter(f"{self.settings.redis_prefix}jobs:*"))
        tenants = [name.rsplit(":", 1)[1] for name in lists]
        return [job for tenant in tenants for job in self.store.list_jobs(tenant, limit=100_000)]

    def ending(self) -> Ending:
        """What record, bucket and outbox hold now."""
        jobs = self.jobs()
        records = {
            job.id: Record(job.status, {file.key: file.sha256 for file in job.result.files} if job.result else {})
            for job in jobs
        }
        keys = self.storage.keys("outputs/")
        objects = {key: hashlib.sha256(b"".join(self.storage.open(key).chunks())).hexdigest() for key in keys}
        deliveries = tuple(
            Delivery(found.message_id, job.id, found.event, found.state) for job in jobs for found in self.outbox.of_job(job.id)
        )
        asked = frozenset(job.id for job in jobs if job.spec.webhook is not None)
        return Ending(records, objects, deliveries, asked)


@contextmanager
def running(folder: Path, **changes: Any) -> Iterator[System]:
    """A system whose servers run in the block; its processes are for the caller to start."""
    system = System(folder, **changes)
    try:
        yield system
    finally:
        system.close()
