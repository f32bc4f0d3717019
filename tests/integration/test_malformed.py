"""Messages and records that nobody of ours wrote: whoever meets one goes on with the next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from redis import Redis

from shared.job_store import JobStore, connect_store
from shared.jobs import Event, Lane, RenderSpec, Status
from shared.outbox import DeliveryState, connect_outbox
from shared.queue import DELIVER_QUEUE, DELIVER_TASK, RENDER_TASK, enqueue_delivery, enqueue_render, make_celery
from shared.queue import render_queue as queue_of
from shared.redis_client import connect
from shared.settings import Settings
from tests.contracts.jobs import MODEL, new_result, new_spec
from tests.integration.conftest import S3Location
from tests.integration.processes import Processes, wait_until


@pytest.fixture
def settings(redis_url: str, s3: S3Location) -> Settings:
    return s3.settings(Settings(redis_url=redis_url, lease_s=3, heartbeat_s=0.5))


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    with connect(settings.redis_url, timeout_s=5) as client:
        yield client


@pytest.fixture
def store(settings: Settings, redis: Redis) -> JobStore:
    return connect_store(settings, redis)


@pytest.fixture
def celery(settings: Settings) -> Celery:
    return make_celery(settings)


@pytest.fixture
def processes(settings: Settings, tmp_path: Path) -> Iterator[Processes]:
    started = Processes(settings, tmp_path)
    yield started
    started.stop()


def submit(store: JobStore, celery: Celery) -> str:
    render = RenderSpec("50% red, 50% black", None, 42, 5, 7.0, 64, 64, "png", 90)
    job_id = store.create(new_spec(render=render), body_hash="h", queue_max_jobs=100).job_id
    enqueue_render(celery, job_id, model=MODEL, lane=Lane.NORMAL)
    return job_id


def send_nonsense(celery: Celery, task: str, queue: str) -> None:
    for name, arguments in ((task, []), (task, ["a", "b", "c"]), (task, [{"a": None}]), (task, ["nobody"]), ("nothing", [])):
        celery.send_task(name, args=arguments, queue=queue)


NO_MESSAGES = ("not json", "{}", "[]", "null", "7", '"text"', '{"body": "x", "properties": {}}', b"\xff\xfe")


def test_a_render_worker_passes_over_what_it_cannot_read(
    processes: Processes, store: JobStore, celery: Celery, redis: Redis
) -> None:
    send_nonsense(celery, RENDER_TASK, queue_of(MODEL))
    for key in redis.keys("*render.*"):
        if redis.type(key) == "list":
            redis.lpush(key, *NO_MESSAGES)
            redis.rpush(key, *NO_MESSAGES)
    broken = submit(store, celery)
    redis.hset(f"granule:job:{broken}", "spec", "{")
    good = [submit(store, celery) for _ in range(3)]
    guardian = processes.guardian()
    wait_until(lambda: store.get(good[0]).status is not Status.QUEUED, timeout_s=40)
    worker = processes.worker_of(guardian)
    for job_id in good:
        wait_until(lambda job_id=job_id: store.get(job_id).status is Status.SUCCEEDED, timeout_s=40)
    assert processes.worker_of(guardian) == worker
    assert [store.get(job_id).crashes for job_id in good] == [0, 0, 0]
    wait_until(lambda: not redis.keys("*unacked"))


def test_a_courier_passes_over_what_it_cannot_read(
    processes: Processes, store: JobStore, celery: Celery, redis: Redis, settings: Settings
) -> None:
    outbox = connect_outbox(settings, redis)
    spec = new_spec(webhook="https://shop.example.com/hook", webhook_events=[Event.COMPLETED])
    store.create(spec, body_hash="h", queue_max_jobs=100)
    store.claim(spec.id, worker="a", delivery_token="1")
    store.succeed(spec.id, 1, new_result())
    redis.hset(f"granule:delivery:{spec.id}.1", "record", "{")
    send_nonsense(celery, DELIVER_TASK, DELIVER_QUEUE)
    enqueue_delivery(celery, "nobody.1")
    courier = processes.courier()

    def state() -> DeliveryState:
        [delivery] = outbox.of_job(spec.id)
        return delivery.state

    wait_until(lambda: state() is DeliveryState.DEAD, timeout_s=40)
    wait_until(lambda: not redis.keys("*unacked"))
    assert courier.poll() is None
