from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import fakeredis
import pytest
from redis import Redis

from shared.job_store import JobStore
from shared.jobs import Status
from shared.manifest import load_catalog
from shared.settings import Settings
from tests.contracts.jobs import MODEL, new_spec
from worker.duty import DutyMeter
from worker.pulse import Broke, Holding, Pulse
from worker.runner import WorkerBroken, run_jobs
from worker.spool import Spool
from worker.station import Station


@pytest.fixture
def redis() -> Redis:
    return fakeredis.FakeRedis(decode_responses=True)


@pytest.fixture
def store(redis: Redis) -> JobStore:
    return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)


@pytest.fixture
def station(store: JobStore) -> Iterator[Station]:
    """One whose pipeline and storage nobody may touch."""
    read_fd, write_fd = os.pipe()
    yield Station(
        name="w",
        manifest=load_catalog(Settings().models_dir).by_slug(MODEL),
        store=store,
        previews=cast("Any", None),
        storage=cast("Any", None),
        pipeline=cast("Any", None),
        pulse=Pulse(write_fd),
        spool=Spool(2),
        duty=DutyMeter(),
        publish_limit_s=60,
        is_stopping=lambda: False,
    )
    os.close(write_fd)
    os.close(read_fd)


@contextmanager
def suspect_beside_a_picture(store: JobStore, station: Station) -> Iterator[tuple[str, threading.Thread, threading.Event]]:
    """A job that a worker died over, the thread that works on it, and what lets the picture that is in the spool out."""
    spec, away = new_spec(), threading.Event()
    store.create(spec, body_hash="h", queue_max_jobs=10)
    store.claim(spec.id, worker="dead", delivery_token="1")
    assert store.expire(spec.id, fence=1) is Status.QUEUED
    station.spool.put(lambda: bool(away.wait(20)) or None)
    worker = threading.Thread(target=run_jobs, args=(spec.id, station))
    worker.start()
    try:
        yield spec.id, worker, away
    finally:
        away.set()
        worker.join()


def test_a_job_that_waits_to_be_drawn_alone_can_be_called_off(store: JobStore, station: Station) -> None:
    with suspect_beside_a_picture(store, station) as (job_id, worker, away):
        deadline_s = time.monotonic() + 10
        while store.get(job_id).status is Status.QUEUED and time.monotonic() < deadline_s:
            time.sleep(0.02)
        store.cancel(job_id)
        worker.join(10)
        assert store.get(job_id).status is Status.CANCELED and not away.is_set()


def test_a_job_that_must_be_drawn_alone_is_left_to_a_worker_that_is(
    store: JobStore, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.runner.ALONE_PATIENCE_S", 0.1)
    with suspect_beside_a_picture(store, station) as (job_id, worker, away):
        deadline_s = time.monotonic() + 10
        while (store.get(job_id).status, store.get(job_id).fence) != (Status.QUEUED, 2) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        taken = store.claim_next(MODEL, worker="free", token="1")
        assert taken is not None and (taken.id, taken.fence, taken.crashes) == (job_id, 3, 1)
        assert worker.is_alive()
    assert store.get(job_id).worker == "free"


@pytest.mark.parametrize("part", ["Trail", "Progress"])
def test_an_error_before_the_first_step_ends_the_worker_and_says_so(
    store: JobStore, station: Station, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    spec, sent = new_spec(), []
    store.create(spec, body_hash="h", queue_max_jobs=10)
    monkeypatch.setattr(station.pulse, "send", sent.append)

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(f"worker.runner.{part}", no_thread)
    with pytest.raises(WorkerBroken):
        run_jobs(spec.id, station)
    assert sent == [Holding(spec.id, 1), Broke(spec.id, 1, ends_worker=True)]
