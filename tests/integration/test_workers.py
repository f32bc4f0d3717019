"""Jobs through real guardians, Celery workers and couriers; only the pipeline is a stand-in."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from celery import Celery
from PIL import Image

from shared.job_store import JobStore, connect_store
from shared.jobs import Job, Lane, RenderSpec, Status
from shared.queue import enqueue_render, make_celery, message_lists
from shared.redis_client import connect
from shared.settings import Settings
from shared.storage import Storage
from shared.worker_registry import Standing, WorkerRegistry
from tests.contracts.jobs import MODEL, new_spec
from tests.integration.conftest import S3Location
from tests.integration.processes import Processes, wait_until


@pytest.fixture
def settings(redis_url: str, s3: S3Location) -> Settings:
    return s3.settings(Settings(redis_url=redis_url, lease_s=3, heartbeat_s=0.5, step_limit_s=5, grace_s=2))


@pytest.fixture
def processes(settings: Settings, tmp_path: Path) -> Iterator[Processes]:
    started = Processes(settings, tmp_path)
    yield started
    started.stop()


def submit(store: JobStore, celery: Celery | None, prompt: str = "50% red, 50% black") -> str:
    render = RenderSpec(prompt, None, 42, 5, 7.0, 64, 64, "png", 90)
    job_id = store.create(new_spec(render=render), body_hash="h", queue_max_jobs=100).job_id
    if celery is not None:
        enqueue_render(celery, job_id, model=MODEL, lane=Lane.NORMAL)
    return job_id


def ended(store: JobStore, job_id: str, *, timeout_s: float = 40.0) -> Job:
    wait_until(lambda: store.get(job_id).status.is_terminal, timeout_s=timeout_s)
    return store.get(job_id)


def test_a_job_goes_the_whole_way(processes: Processes, store: JobStore, celery: Celery, storage: Storage) -> None:
    processes.guardian()
    job = ended(store, submit(store, celery))
    assert job.status is Status.SUCCEEDED and job.result is not None
    [output] = job.result.outputs
    assert storage.head(output.key).size_bytes == output.size_bytes
    [thumbnail] = job.result.thumbnails
    assert storage.keys(f"outputs/{job.id}/") == [output.key, thumbnail.key]
    with Image.open(io.BytesIO(b"".join(storage.open(thumbnail.key).chunks()))) as small:
        assert (small.format, small.size, thumbnail.content_type) == ("WEBP", (64, 64), "image/webp")
    assert job.step == 5
    lines = job.logs.splitlines()
    assert lines[0] == "Using seed: 42" and lines[-1].startswith("100%|")


def test_an_order_for_several_pictures_gets_them_all_with_names_of_their_own(
    processes: Processes, store: JobStore, celery: Celery, storage: Storage
) -> None:
    processes.guardian()
    render = RenderSpec("50% red, 50% black", None, 42, 5, 7.0, 64, 64, "jpg", 90, num_candidates=2, seamless=True)
    render = replace(render, angles=(0, 45), legend=True)
    job_id = store.create(new_spec(render=render, filename="tile.jpg"), body_hash="h", queue_max_jobs=100).job_id
    enqueue_render(celery, job_id, model=MODEL, lane=Lane.NORMAL)
    job = ended(store, job_id)
    assert job.status is Status.SUCCEEDED and job.result is not None
    assert [output.filename for output in job.result.outputs] == ["tile.jpg", "tile_45deg.jpg", "tile_legend.jpg"]
    names = [thumbnail.filename for thumbnail in job.result.thumbnails]
    assert names == ["tile_thumb.webp", "tile_45deg_thumb.webp", "tile_legend_thumb.webp"]
    assert sorted(storage.keys(f"outputs/{job.id}/")) == sorted(file.key for file in job.result.files)
    assert (job.result.candidates, job.step) == (2, 10)
    assert job.result.tile_score == 0 and job.result.seam_score is not None
    assert "Candidate 2 of 2, seed 43" in job.logs and "Kept seed" in job.logs


def test_a_killed_worker_costs_its_job_one_attempt_and_the_next_worker_ends_it(
    processes: Processes, store: JobStore, celery: Celery, storage: Storage
) -> None:
    processes.extra["STANDIN_STEP_S"] = "0.4"
    first, second = processes.guardian(), processes.guardian()
    job_id = submit(store, celery)
    wait_until(lambda: store.get(job_id).step >= 1)
    holder = store.get(job_id).worker
    assert holder is not None
    victim = first if f"-{first.pid}-" in holder else second
    processes.worker_of(victim).kill()
    job = ended(store, job_id)
    assert (job.status, job.crashes, job.fence) == (Status.SUCCEEDED, 1, 2)
    assert job.result is not None and storage.keys(f"outputs/{job_id}/") == [file.key for file in job.result.files]
    # No courier runs, so nobody looks for leases: it was the guardian that gave the job back.


def test_a_job_of_a_worker_killed_with_its_guardian_comes_back_by_its_lease(
    processes: Processes, store: JobStore, celery: Celery
) -> None:
    processes.extra["STANDIN_STEP_S"] = "0.4"
    processes.courier()
    doomed = processes.guardian()
    job_id = submit(store, celery)
    wait_until(lambda: store.get(job_id).step >= 1)
    worker = processes.worker_of(doomed)
    doomed.kill()
    worker.kill()
    processes.guardian()
    job = ended(store, job_id)
    assert (job.status, job.crashes) == (Status.SUCCEEDED, 1)


def test_a_worker_ends_when_its_guardian_is_killed(processes: Processes, store: JobStore, workers: WorkerRegistry) -> None:
    guardian = processes.guardian()
    wait_until(workers.alive)
    worker = processes.worker_of(guardian)
    guardian.kill()
    guardian.wait()
    wait_until(lambda: not worker.is_running() or worker.status() == "zombie", timeout_s=15)


def test_poison_fails_after_three_deaths_and_blocks_nobody(processes: Processes, store: JobStore, celery: Celery) -> None:
    processes.courier()
    processes.guardian()
    poison = submit(store, celery, "poison")
    harmless = submit(store, celery)
    assert ended(store, poison, timeout_s=90).error is not None
    assert store.get(poison).status is Status.FAILED and store.get(poison).crashes == 3
    assert ended(store, harmless, timeout_s=90).status is Status.SUCCEEDED


def test_a_call_that_holds_the_interpreter_does_not_cost_the_lease(
    processes: Processes, store: JobStore, celery: Celery
) -> None:
    processes.extra["STANDIN_STEP_S"] = "3.5"
    processes.courier()
    processes.guardian()
    job = ended(store, submit(store, celery, "hold the interpreter"), timeout_s=60)
    assert (job.status, job.fence, job.crashes) == (Status.SUCCEEDED, 1, 0)


def test_a_hanging_job_is_taken_from_its_worker(processes: Processes, store: JobStore, celery: Celery) -> None:
    processes.guardian()
    job_id = submit(store, celery, "hang")
    wait_until(lambda: store.get(job_id).crashes == 1, timeout_s=30)
    store.cancel(job_id)
    wait_until(lambda: store.get(job_id).cancel_requested or store.get(job_id).status.is_terminal)


def test_a_running_job_is_canceled_between_two_steps_and_the_worker_goes_on(
    processes: Processes, store: JobStore, celery: Celery, storage: Storage
) -> None:
    processes.extra["STANDIN_STEP_S"] = "0.5"
    guardian = processes.guardian()
    job_id = submit(store, celery)
    wait_until(lambda: store.get(job_id).step >= 1)
    worker = processes.worker_of(guardian)
    store.cancel(job_id)
    job = ended(store, job_id, timeout_s=5)
    assert job.status is Status.CANCELED and job.result is None
    assert storage.keys(f"outputs/{job_id}/") == []
    assert ended(store, submit(store, celery)).status is Status.SUCCEEDED
    assert processes.worker_of(guardian).pid == worker.pid


def test_a_failure_of_the_pipeline_fails_the_job_and_not_the_worker(
    processes: Processes, store: JobStore, celery: Celery
) -> None:
    processes.guardian()
    job = ended(store, submit(store, celery, "out of memory"))
    assert job.status is Status.FAILED and job.error is not None and job.error.code == "out_of_memory"
    assert ended(store, submit(store, celery)).status is Status.SUCCEEDED


def test_a_job_that_was_recorded_but_never_published_is_found(processes: Processes, store: JobStore) -> None:
    processes.courier()
    processes.guardian()
    assert ended(store, submit(store, None)).status is Status.SUCCEEDED


def test_a_stopped_worker_finishes_what_it_holds(processes: Processes, store: JobStore, celery: Celery) -> None:
    processes.extra["STANDIN_STEP_S"] = "0.2"
    guardian = processes.guardian()
    job_id = submit(store, celery)
    wait_until(lambda: store.get(job_id).step >= 1)
    guardian.send_signal(signal.SIGTERM)
    assert guardian.wait(timeout=20) == 0
    job = store.get(job_id)
    assert (job.status, job.fence, job.crashes) == (Status.SUCCEEDED, 1, 0)


def test_a_worker_stopped_in_a_long_job_hands_it_back_uncharged(processes: Processes, store: JobStore, celery: Celery) -> None:
    processes.extra["STANDIN_STEP_S"] = "2"
    guardian = processes.guardian()
    job_id = submit(store, celery)
    wait_until(lambda: store.get(job_id).step >= 1)
    guardian.send_signal(signal.SIGTERM)
    assert guardian.wait(timeout=20) == 0
    job = store.get(job_id)
    assert (job.status, job.fence, job.crashes) == (Status.QUEUED, 1, 0)
    processes.guardian()
    assert ended(store, job_id).fence == 2


def test_a_drained_worker_ends_its_job_and_takes_the_next_when_it_is_resumed(
    processes: Processes, store: JobStore, celery: Celery, workers: WorkerRegistry
) -> None:
    processes.extra["STANDIN_STEP_S"] = "0.4"
    processes.courier()
    guardian = processes.guardian()
    held = submit(store, celery)
    wait_until(lambda: store.get(held).step >= 1, timeout_s=120)
    waiting = [submit(store, celery) for _ in range(3)]
    name = store.get(held).worker
    assert name is not None
    workers.drain(name)
    assert [info.standing for info in workers.everybody()] == [Standing.DRAINING]
    wait_until(lambda: [info.standing for info in workers.everybody()] == [Standing.DRAINED], timeout_s=120)
    assert workers.alive() == [] and psutil.Process(guardian.pid).children() == []
    # What it held when it heard of it is done, and nothing that waited is lost or charged.
    assert (store.get(held).status, store.get(held).crashes) == (Status.SUCCEEDED, 0)
    left = [job_id for job_id in waiting if not store.get(job_id).status.is_terminal]
    assert left and {store.get(job_id).status for job_id in left} == {Status.QUEUED}
    workers.resume(name)
    ends = [ended(store, job_id, timeout_s=120) for job_id in waiting]
    assert {(job.status, job.fence, job.crashes) for job in ends} == {(Status.SUCCEEDED, 1, 0)}
    assert [info.name for info in workers.alive()] == [name]


def test_a_worker_shows_itself_only_while_it_is_there(processes: Processes, workers: WorkerRegistry) -> None:
    guardian = processes.guardian()
    wait_until(workers.alive)
    [info] = workers.alive()
    assert (info.model, info.device) == (MODEL, "stand-in")
    guardian.send_signal(signal.SIGTERM)
    guardian.wait(timeout=20)
    assert workers.alive() == []


def test_two_installations_on_one_server_leave_each_others_jobs_alone(
    processes: Processes, settings: Settings, store: JobStore, celery: Celery
) -> None:
    other = Settings(**{name: getattr(settings, name) for name in settings.model_fields_set}, redis_prefix="other:")
    other_store = connect_store(other, connect(other.redis_url, timeout_s=5))
    elsewhere = submit(other_store, make_celery(other))
    processes.guardian()
    assert ended(store, submit(store, celery)).status is Status.SUCCEEDED
    assert other_store.get(elsewhere).status is Status.QUEUED
    redis = connect(settings.redis_url, timeout_s=5)
    assert [redis.llen(name) for name in message_lists(MODEL, prefix="other:")] == [0, 0, 1, 0]
