"""Twice the render workers, twice the jobs in a second: nothing between them makes one wait for the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.job_store import JobStore, connect_store
from shared.jobs import Lane, RenderSpec
from shared.queue import enqueue_render, make_celery
from shared.redis_client import connect
from shared.settings import Settings
from shared.worker_registry import connect_workers
from tests.contracts.jobs import MODEL, new_spec
from tests.integration.conftest import S3Location
from tests.integration.processes import Processes, wait_until

STEP_S = 0.5
JOBS_EACH = 5
TRIES = 3
"""What else runs on the machine can only take away from the rate of two."""


@pytest.fixture
def processes(redis_url: str, s3: S3Location, tmp_path: Path) -> Iterator[Processes]:
    settings = s3.settings(Settings(redis_url=redis_url, heartbeat_s=0.5))
    started = Processes(settings, tmp_path, {"STANDIN_STEP_S": str(STEP_S)})
    yield started
    started.stop()


def jobs_per_s(processes: Processes, store: JobStore, count: int) -> float:
    """Draw so many jobs that wait together; the rate is that between the first claim and the last outcome, on Redis's clock."""
    celery = make_celery(processes.settings)
    render = RenderSpec("50% red, 50% black", None, 42, 5, 7.0, 64, 64, "png", 90)
    jobs = [store.create(new_spec(render=render), body_hash=str(n), queue_max_jobs=100).job_id for n in range(count)]
    for job_id in jobs:
        enqueue_render(celery, job_id, model=MODEL, lane=Lane.NORMAL)
    wait_until(lambda: all(store.get(job_id).status.is_terminal for job_id in jobs), timeout_s=200)
    found = [store.get(job_id) for job_id in jobs]
    begun_ms = min(job.started_ms for job in found if job.started_ms is not None)
    ended_ms = max(job.completed_ms for job in found if job.completed_ms is not None)
    return 1000 * count / (ended_ms - begun_ms)


def test_two_workers_draw_twice_as_many_jobs_as_one(processes: Processes) -> None:
    redis = connect(processes.settings.redis_url, timeout_s=5)
    store, workers = connect_store(processes.settings, redis), connect_workers(processes.settings, redis)
    processes.guardian()
    wait_until(lambda: len(workers.alive()) == 1, timeout_s=120)
    one = jobs_per_s(processes, store, JOBS_EACH)
    processes.guardian()
    wait_until(lambda: len(workers.alive()) == 2, timeout_s=120)
    two = 0.0
    for _ in range(TRIES):
        two = max(two, jobs_per_s(processes, store, 2 * JOBS_EACH))
        if two / one >= 1.9:
            break
    assert two / one >= 1.9, f"{one:.3f} jobs/s with one worker, {two:.3f} with two"
    # Not because one was slow: it spends its time drawing.
    assert one >= 0.9 / (5 * STEP_S)
