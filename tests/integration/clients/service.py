"""What the official clients talk to in these tests: a real gunicorn with a real Redis and S3.

Only the drawing is left out: a thread in this process claims jobs and ends them as a render worker does.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from dataclasses import dataclass, field

from replicate.client import Client

from shared.job_store import Beat, JobStore
from shared.jobs import JobError, Output, Result
from shared.storage import Storage, output_key

STEPS = 20
PICTURE = b"\x89PNG\r\n\x1a\n not really, but these are the bytes"
TENANT, TOKEN = "shop", "shop-token"
HASTY_TOKEN = "hasty-token"
HASTY_CREATES_PER_MINUTE = 2
SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of a test secret").decode()


@dataclass
class StandInWorker:
    """Ends every job that a message names: `step_s` a step, and the outcome that its prompt asks for."""

    store: JobStore
    storage: Storage
    step_s: float = 0.005
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        done: set[str] = set()
        while not self.stopping.wait(0.02):
            for job in self.store.list_jobs(TENANT, limit=20)[::-1]:
                if job.id not in done:
                    done.add(job.id)
                    self.work(job.id)

    def work(self, job_id: str) -> None:
        job = self.store.claim(job_id, worker="stand-in", delivery_token=job_id)
        if job is None:
            return
        for step in range(1, STEPS + 1):
            time.sleep(self.step_s)
            line = f"{100 * step // STEPS:3}%|{'#' * step:<{STEPS}}| {step}/{STEPS} [00:00<00:00]\n"
            if self.store.renew(job_id, job.fence, step=step, log=line) is Beat.CANCEL:
                self.store.let_go(job_id, job.fence)
                return
        if "broken" in job.spec.render.prompt:
            self.store.fail(job_id, job.fence, JobError("render_failed", "the pipeline broke"))
            return
        key = output_key(job_id, job.fence, 0, "png")
        self.storage.put(key, PICTURE, content_type="image/png", metadata={})
        output = Output(key, job.spec.filename, "image/png", len(PICTURE), hashlib.sha256(PICTURE).hexdigest())
        self.store.succeed(job_id, job.fence, Result([output], STEPS * self.step_s))


@dataclass(frozen=True)
class Service:
    """An API that serves, and what its tests look behind it with."""

    base_url: str
    store: JobStore
    worker: StandInWorker
    clients: list[Client] = field(default_factory=list)

    def ids(self) -> list[str]:
        """Ids of all jobs of the shop, newest first."""
        return [job.id for job in self.store.list_jobs(TENANT, limit=1000)]

    def client(self, base_url: str | None = None, token: str = TOKEN) -> Client:
        client = Client(api_token=token, base_url=base_url or self.base_url)
        client.poll_interval = 0.05
        self.clients.append(client)
        return client
