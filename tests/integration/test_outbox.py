"""The lines that deliveries wait in, on the real server. What is done with a delivery is in test_courier.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from shared.job_store import JobStore
from shared.jobs import Event
from shared.outbox import SILENT_AFTER, DeliveryState, Outbox
from shared.redis_client import connect
from tests.contracts.jobs import new_result, new_spec


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url, timeout_s=5) as client:
        yield client


@pytest.fixture
def store(redis: Redis) -> JobStore:
    return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)


@pytest.fixture
def outbox(redis: Redis) -> Outbox:
    return Outbox(redis, prefix="test:")


def finish_job(store: JobStore, url: str) -> str:
    spec = new_spec(webhook=url, webhook_events=[Event.COMPLETED])
    store.create(spec, body_hash="h", queue_max_jobs=100)
    store.claim(spec.id, worker="a", delivery_token="1")
    store.succeed(spec.id, 1, new_result())
    return spec.id


def test_one_receiver_takes_two_places_at_most_and_others_are_served(store: JobStore, outbox: Outbox) -> None:
    for _ in range(20):
        finish_job(store, "https://slow.example.com/hook")
    finish_job(store, "https://quick.example.com/hook")
    taken = [outbox.get(delivery_id) for delivery_id in outbox.take_due(limit=10, hold_s=60)]
    urls = [delivery.url for delivery in taken if delivery is not None]
    assert sorted(urls) == ["https://quick.example.com/hook", *["https://slow.example.com/hook"] * 2]
    assert outbox.take_due(limit=10, hold_s=60) == []


def test_a_place_is_free_again_after_the_try_or_when_the_courier_died(store: JobStore, outbox: Outbox, redis: Redis) -> None:
    for _ in range(3):
        finish_job(store, "https://shop.example.com/hook")
    first, second = outbox.take_due(limit=10, hold_s=60)
    settled = outbox.get(first)
    assert settled is not None
    outbox.settle(settled, DeliveryState.DELIVERED, note="HTTP 200")
    [third] = outbox.take_due(limit=10, hold_s=60)
    for held in ("due", "busy:https://shop.example.com"):  # the minute is over
        redis.zadd(f"test:deliveries:{held}", {second: 1})
    assert outbox.take_due(limit=10, hold_s=60) == [second]
    assert third not in (first, second)


def test_what_waits_for_a_silent_receiver_for_too_long_is_dead(store: JobStore, outbox: Outbox, redis: Redis) -> None:
    job_id = finish_job(store, "https://shop.example.com/hook")
    redis.zadd("test:deliveries:due", {f"{job_id}.1": 1})
    redis.set("test:deliveries:silent:https://shop.example.com", SILENT_AFTER)
    assert outbox.take_due(limit=10, hold_s=60) == []
    [delivery] = outbox.of_job(job_id)
    assert delivery.state is DeliveryState.DEAD
    assert outbox.dead()[1] == [delivery]


def test_a_forgotten_delivery_does_not_come_round_for_ever(store: JobStore, outbox: Outbox, redis: Redis) -> None:
    job_id = finish_job(store, "https://shop.example.com/hook")
    redis.delete(f"test:delivery:{job_id}.1")
    assert outbox.take_due(limit=10, hold_s=60) == []
    assert redis.zcard("test:deliveries:due") == 0


def test_one_that_is_being_tried_is_not_sent_twice_by_hand(store: JobStore, outbox: Outbox) -> None:
    job_id = finish_job(store, "https://shop.example.com/hook")
    [delivery_id] = outbox.take_due(limit=10, hold_s=60)
    outbox.redeliver(delivery_id)
    assert outbox.take_due(limit=10, hold_s=60) == []
    [delivery] = outbox.of_job(job_id)
    assert delivery.state is DeliveryState.PENDING
