"""The official Python client, unmodified, against a real gunicorn with a real Redis and S3.

Only the drawing is left out: a thread in this process claims jobs and ends them as a render worker does.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from pydantic import SecretStr
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.helpers import FileOutput
from replicate.pagination import paginate

from infra.local.ports import free_block
from infra.local.redis_server import RedisServer
from shared.job_store import Beat, JobStore, connect_store
from shared.jobs import JobError, Output, Result
from shared.redis_client import connect
from shared.settings import Settings
from shared.storage import Storage, connect_storage, output_key
from tests.contracts.api import MIX, MODEL, OLD_VERSION
from tests.integration.conftest import S3Location
from tests.integration.processes import environment, wait_until

STEPS = 20
PICTURE = b"\x89PNG\r\n\x1a\n not really, but these are the bytes"
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
            for job in self.store.list_jobs("shop", limit=20)[::-1]:
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
    base_url: str
    store: JobStore
    worker: StandInWorker
    clients: list[Client] = field(default_factory=list)

    def client(self, base_url: str | None = None, token: str = "shop-token") -> Client:
        client = Client(api_token=token, base_url=base_url or self.base_url)
        client.poll_interval = 0.05
        self.clients.append(client)
        return client


@pytest.fixture(scope="module")
def server(
    redis_server: RedisServer, s3: S3Location, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Settings]]:
    """Address and settings of an API behind gunicorn."""
    settings = s3.settings(Settings(redis_url=redis_server.url, webhook_secret=SecretStr(SECRET)))
    address = f"127.0.0.1:{free_block(1)[0]}"
    arguments = ["--bind", address, "--worker-class", "gthread", "--threads", "16", "api.server:create_app()"]
    with (tmp_path_factory.mktemp("gunicorn") / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *arguments],
            env=environment(settings, GRANULE_API_TOKENS="shop:shop-token"),
            stdout=log,
            stderr=log,
        )
        try:
            wait_until(lambda: is_up(f"http://{address}/healthz"))
            yield f"http://{address}", settings
        finally:
            process.terminate()
            process.wait(timeout=60)


@pytest.fixture
def service(server: tuple[str, Settings], redis_url: str) -> Iterator[Service]:
    base_url, settings = server
    with connect(redis_url, timeout_s=5) as redis:
        worker = StandInWorker(connect_store(settings, redis), connect_storage(settings))
        thread = threading.Thread(target=worker.run)
        thread.start()
        service = Service(base_url, worker.store, worker)
        yield service
        worker.stopping.set()
        thread.join()
        for client in service.clients:
            client._client.close()


def is_up(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("suffix", ["", "/", "/v1"])
@pytest.mark.parametrize("ref", [MODEL, f"nauslava/rubber-tile-lora-v45:{OLD_VERSION}"])
def test_run_waits_and_returns_the_address_of_the_picture(service: Service, suffix: str, ref: str) -> None:
    output = service.client(service.base_url + suffix).run(ref, input={"prompt": MIX, "seed": 42})
    assert output.startswith(f"{service.base_url}/v1/files/")
    assert output.endswith("_50red-30black-20pearl_seed42.png")
    assert len(service.store.list_jobs("shop")) == 1


def test_run_polls_when_told_not_to_wait(service: Service) -> None:
    assert service.client().run(MODEL, input={"prompt": MIX}, wait=False).endswith(".png")


def test_the_picture_is_read_although_the_client_sends_its_token_along(service: Service) -> None:
    client = service.client()
    output = client.run(MODEL, input={"prompt": MIX})
    assert FileOutput(output, client).read() == PICTURE


def test_a_hold_that_expires_goes_on_as_polling_and_never_gives_none(service: Service) -> None:
    service.worker.step_s = 0.1
    started_s = time.monotonic()
    output = service.client().run(MODEL, input={"prompt": MIX}, wait=1)
    assert time.monotonic() - started_s > STEPS * 0.1
    assert output.endswith(".png")
    assert len(service.store.list_jobs("shop")) == 1


def test_create_with_the_64_hex_version_then_wait(service: Service) -> None:
    service.worker.step_s = 0.03
    prediction = service.client().predictions.create(version=OLD_VERSION, input={"prompt": MIX})
    assert (prediction.status, prediction.version) == ("starting", OLD_VERSION)
    seen = []
    while prediction.status not in ("succeeded", "failed", "canceled"):
        prediction.reload()
        seen.append(prediction.progress.percentage if prediction.progress else 0.0)
    assert prediction.status == "succeeded"
    assert prediction.metrics["predict_time"] > 0
    assert seen == sorted(seen)
    assert any(0 < fraction < 1 for fraction in seen)


def test_the_three_ways_to_name_what_to_run(service: Service) -> None:
    client = service.client()
    version = client.models.get(MODEL).latest_version
    for named in ({"version": version}, {"model": MODEL}, {"deployment": MODEL}):
        assert client.predictions.create(**named, input={"prompt": MIX}).model == MODEL
    assert client.run(version, input={"prompt": MIX}).endswith(".png")


def test_cancel_a_running_prediction(service: Service) -> None:
    service.worker.step_s = 0.1
    client = service.client()
    prediction = client.predictions.create(model=MODEL, input={"prompt": MIX})
    wait_until(lambda: client.predictions.get(prediction.id).status == "processing")
    prediction.cancel()
    prediction.wait()
    assert (prediction.status, prediction.output) == ("canceled", None)


def test_cancel_a_waiting_prediction(service: Service) -> None:
    service.worker.stopping.set()
    client = service.client()
    assert client.predictions.cancel(client.predictions.create(model=MODEL, input={"prompt": MIX}).id).status == "canceled"


def test_list_and_paginate(service: Service) -> None:
    service.worker.stopping.set()
    client = service.client()
    ids = [client.predictions.create(model=MODEL, input={"prompt": MIX}).id for _ in range(101)][::-1]
    pages = list(paginate(client.predictions.list))
    assert [len(page) for page in pages] == [100, 1]
    assert [prediction.id for page in pages for prediction in page] == ids
    assert [prediction.id for prediction in client.predictions.list(pages[1].previous)] == ids[:100]


def test_a_failure_is_the_models_and_an_error_names_the_field(service: Service) -> None:
    client = service.client()
    with pytest.raises(ModelError, match="the pipeline broke"):
        client.run(MODEL, input={"prompt": "broken"})
    with pytest.raises(ReplicateError) as caught:
        client.run(MODEL, input={"prompt": "50% red"})
    assert (caught.value.status, caught.value.title) == (422, "Input validation failed")
    assert "must sum to 100%" in caught.value.detail
    with pytest.raises(ReplicateError) as caught:
        service.client(token="wrong").predictions.list()
    assert (caught.value.status, caught.value.title) == (401, "Unauthenticated")


def test_what_surrounds_predictions(service: Service) -> None:
    client = service.client()
    assert client.accounts.current().username == "shop"
    assert client.webhooks.default.secret().key == SECRET
    assert client.hardware.list() == []
    assert {model.id for model in client.models.list()} == {MODEL, "nauslava/rubber-tile-lora-v45"}
    assert [model.id for model in client.models.search("two CPU cores")] == [MODEL]
    assert client.models.get(MODEL).versions.list()[0].openapi_schema["components"]["schemas"]["Output"]["type"] == "string"
    assert client.deployments.get(MODEL).current_release.model == MODEL
