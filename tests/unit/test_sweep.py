from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import fakeredis
import pytest
from redis import Redis

from shared.job_store import JobStore
from shared.jobs import Status
from shared.manifest import load_catalog
from shared.outbox import Outbox
from shared.queue import make_celery
from shared.settings import Settings
from shared.storage import Storage, connect_storage
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
    return Sweep(store=store, outbox=outbox, storage=storage, catalog=catalog, celery=celery, prefix="test:")


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


def test_leases_are_not_judged_until_redis_has_answered_for_the_time_of_one(
    redis: Redis, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1e9
    monkeypatch.setattr("fakeredis.commands_mixins.server_mixin.time", SimpleNamespace(time=lambda: now_s))

    def asked_for(seconds: int) -> list[bool]:
        nonlocal now_s
        answers = []
        for _ in range(4 * seconds):
            now_s += 0.25
            answers.append(store.is_amnesty())
        return answers

    assert store.is_amnesty()
    assert asked_for(16) == [True] * 59 + [False] * 5
    now_s += 7  # nobody asked for less than half of a lease: that is no absence
    assert not any(asked_for(2))
    now_s += 8
    assert asked_for(16) == [True] * 60 + [False] * 4


def test_a_storage_that_hangs_does_not_keep_jobs_from_being_given_to_others(store: JobStore, sweep: Sweep) -> None:
    hangs = threading.Event()

    class Hanging(Storage):
        def __init__(self) -> None:
            pass

        def keys(self, prefix: str) -> list[str]:
            hangs.set()
            time.sleep(3600)
            return []

    unwanted, overdue = new_spec(), new_spec(cancel_after_s=0.001)
    store.create(unwanted, body_hash="h", queue_max_jobs=10)
    store.cancel(unwanted.id, unwanted=True)
    stop = threading.Event()
    replace(sweep, storage=Hanging()).start(stop)
    assert hangs.wait(5)
    store.create(overdue, body_hash="h", queue_max_jobs=10)
    deadline_s = time.monotonic() + 5
    while store.get(overdue.id).status is not Status.CANCELED and time.monotonic() < deadline_s:
        time.sleep(0.02)
    stop.set()
    assert store.get(overdue.id).status is Status.CANCELED
