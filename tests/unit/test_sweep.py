from __future__ import annotations

import time

import fakeredis
import pytest
from redis import Redis

from shared.job_store import JobStore
from shared.jobs import Status
from shared.manifest import load_catalog
from shared.outbox import Outbox
from shared.queue import make_celery
from shared.settings import Settings
from shared.storage import connect_storage
from tests.contracts.jobs import new_spec
from worker.sweep import Sweep


@pytest.fixture
def redis() -> Redis:
    return fakeredis.FakeRedis(decode_responses=True)


@pytest.fixture
def store(redis: Redis) -> JobStore:
    return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)


@pytest.fixture
def sweep(redis: Redis, store: JobStore) -> Sweep:
    settings = Settings()
    catalog = load_catalog(settings.models_dir)
    outbox = Outbox(redis, prefix="test:")
    storage, celery = connect_storage(settings), make_celery(settings)
    return Sweep(store=store, outbox=outbox, storage=storage, catalog=catalog, celery=celery, lease_s=15, prefix="test:")


def test_a_job_past_its_deadline_is_called_off(store: JobStore, sweep: Sweep) -> None:
    spec = new_spec(cancel_after_s=0.001)
    store.create(spec, body_hash="h", queue_max_jobs=10)
    time.sleep(0.01)
    sweep.deadlines()
    job = store.get(spec.id)
    assert job.status is Status.CANCELED and job.error is not None and job.error.code == "deadline_passed"


@pytest.mark.parametrize("damage", [{}, {"status": "queued", "spec": "{"}], ids=["no record", "a broken record"])
def test_a_record_that_cannot_be_read_stands_before_no_other(
    redis: Redis, store: JobStore, sweep: Sweep, damage: dict[str, str]
) -> None:
    redis.zadd("test:deadlines", {"damaged": 1})
    if damage:
        redis.hset("test:job:damaged", mapping=damage)
    spec = new_spec(cancel_after_s=0.001)
    store.create(spec, body_hash="h", queue_max_jobs=10)
    time.sleep(0.01)
    sweep.deadlines()
    assert store.get(spec.id).status is Status.CANCELED
    assert redis.zscore("test:deadlines", "damaged") is None
    assert redis.smembers("test:broken") == {"damaged"}


def test_a_waiting_id_without_a_record_does_not_stop_the_search_for_lost_messages(redis: Redis, store: JobStore) -> None:
    spec = new_spec()
    redis.zadd(f"test:queued:{spec.model}:normal", {"damaged": 0})
    store.create(spec, body_hash="h", queue_max_jobs=10)
    assert store.lost(spec.model, ["nothing"], grace_s=0) == [spec.id]
    assert redis.zscore(f"test:queued:{spec.model}:normal", "damaged") is None
