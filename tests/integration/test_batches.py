"""A worker that draws several jobs together, in its own process, on real servers; only the pipeline is a stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from shared.job_store import JobStore
from shared.jobs import Job, Lane, RenderSpec, Status
from shared.queue import enqueue_render
from shared.settings import Settings
from shared.storage import Storage
from shared.worker_registry import WorkerRegistry
from tests.contracts.jobs import MODEL, new_spec
from tests.integration.conftest import S3Location
from tests.integration.processes import Processes, models_in_batches, wait_until

SIZE = 4


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models_in_batches(tmp_path_factory.mktemp("models"), SIZE)


@pytest.fixture
def settings(redis_url: str, s3: S3Location, models_dir: Path) -> Settings:
    limits = {"lease_s": 5, "heartbeat_s": 0.5, "step_limit_s": 10, "grace_s": 2}
    return s3.settings(Settings(redis_url=redis_url, models_dir=models_dir, **limits))  # type: ignore[arg-type]


@pytest.fixture
def processes(settings: Settings, workers: WorkerRegistry, tmp_path: Path) -> Iterator[Processes]:
    """With a courier and one worker that is ready."""
    started = Processes(settings, tmp_path, extra={"STANDIN_STEP_S": "0.1"})
    try:
        started.courier()
        started.guardian()
        wait_until(workers.alive, timeout_s=240)
        yield started
    finally:
        started.stop()


def line(store: JobStore, celery: Celery, *prompts: str) -> list[str]:
    """Ids of jobs that wait behind another one, whose message the worker gets; they are drawn when that is done."""
    [first, *waiting] = [submit(store, seed, prompt) for seed, prompt in enumerate(("0.5 s a step", *prompts))]
    enqueue_render(celery, first, model=MODEL, lane=Lane.NORMAL)
    return waiting


def submit(store: JobStore, seed: int, prompt: str) -> str:
    render = RenderSpec(prompt, None, seed, 5, 7.0, 64, 64, "png", 90)
    return store.create(new_spec(render=render), body_hash="h", queue_max_jobs=100).job_id


def ended(store: JobStore, job_ids: list[str]) -> list[Job]:
    wait_until(lambda: all(store.get(job_id).status.is_terminal for job_id in job_ids), timeout_s=240)
    return [store.get(job_id) for job_id in job_ids]


def rows(job: Job) -> int:
    return int(job.result.provenance["batch_size"]) if job.result else 0


def test_one_called_off_and_one_lost_do_not_hold_up_the_others(
    processes: Processes, store: JobStore, celery: Celery, storage: Storage
) -> None:
    job_ids = line(store, celery, "2 s a step", "blue", "green", "black")
    wait_until(lambda: all(store.get(job_id).step >= 1 for job_id in job_ids), timeout_s=120)
    store.cancel(job_ids[1])
    store.expire(job_ids[2], fence=1)
    first, canceled, lost, last = ended(store, job_ids)
    assert canceled.status is Status.CANCELED and storage.keys(f"outputs/{canceled.id}/") == []
    for job in (first, last):
        assert (job.status, job.fence, job.crashes, rows(job), job.step) == (Status.SUCCEEDED, 1, 0, SIZE, 5)
        assert job.logs.splitlines()[-1].startswith("100%|")
    assert (lost.status, lost.fence, lost.crashes, rows(lost)) == (Status.SUCCEEDED, 2, 1, 1)
    assert [key.split("/")[2] for key in storage.keys(f"outputs/{lost.id}/")] == ["2", "2"]


def test_a_bad_one_fails_alone(processes: Processes, store: JobStore, celery: Celery) -> None:
    job_ids = line(store, celery, "red", "out of memory", "green", "black")
    first, bad, *others = ended(store, job_ids)
    assert bad.status is Status.FAILED and bad.error is not None and bad.error.code == "out_of_memory"
    assert {(job.status, job.fence, job.crashes, rows(job)) for job in (first, *others)} == {(Status.SUCCEEDED, 2, 0, 1)}


def test_poison_in_a_batch_meets_each_of_the_others_once(processes: Processes, store: JobStore, celery: Celery) -> None:
    job_ids = line(store, celery, "red", "blue", "poison", "black")
    first, second, poison, last = ended(store, job_ids)
    assert (poison.status, poison.crashes) == (Status.FAILED, 3)
    assert {(job.status, job.crashes, rows(job)) for job in (first, second, last)} == {(Status.SUCCEEDED, 1, 1)}


def test_a_batch_that_hangs_is_given_back_and_the_guilty_one_found(
    processes: Processes, store: JobStore, celery: Celery
) -> None:
    job_ids = line(store, celery, "red", "blue", "hang", "black")
    wait_until(lambda: all(store.get(job_id).crashes == 1 for job_id in job_ids), timeout_s=120)
    store.cancel(job_ids[2])
    first, second, hanging, last = ended(store, job_ids)
    assert hanging.status is Status.CANCELED
    assert {(job.status, job.crashes, rows(job)) for job in (first, second, last)} == {(Status.SUCCEEDED, 1, 1)}
