"""Lanes through a real Celery worker: messages of different priorities on one queue."""

from __future__ import annotations

from pathlib import Path

from shared.job_store import connect_store
from shared.jobs import Lane
from shared.queue import enqueue_render, make_celery
from shared.redis_client import connect
from shared.settings import Settings
from tests.contracts.jobs import MODEL, new_spec
from tests.integration.conftest import S3Location
from tests.integration.processes import Processes, wait_until


def test_higher_lanes_are_drawn_first_and_within_one_the_earlier_order(redis_url: str, s3: S3Location, tmp_path: Path) -> None:
    settings = s3.settings(Settings(redis_url=redis_url))
    processes = Processes(settings, tmp_path)
    celery = make_celery(settings)
    with connect(redis_url, timeout_s=5) as redis:
        store = connect_store(settings, redis)
        lanes = [Lane.LOW, Lane.NORMAL, Lane.HIGH, Lane.LOW, Lane.HIGH, Lane.NORMAL]
        ids = []
        for lane in lanes:
            spec = new_spec(lane=lane)
            ids.append(store.create(spec, body_hash=spec.id, queue_max_jobs=100).job_id)
            enqueue_render(celery, spec.id, model=MODEL, lane=lane)
        try:
            processes.guardian()
            wait_until(lambda: all(store.get(job_id).status.is_terminal for job_id in ids), timeout_s=60)
        finally:
            processes.stop()
        begun = sorted(ids, key=lambda job_id: store.get(job_id).started_ms or 0)
        redis.connection_pool.disconnect()
    assert [ids.index(job_id) for job_id in begun] == [2, 4, 1, 5, 0, 3]
