"""Rough pictures while a job is drawn: who gets one, when, and that nothing depends on them."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import fakeredis
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from redis import Redis

from shared.errors import RenderFailed, StoreUnavailable
from shared.job_store import JobStore
from shared.jobs import Job
from shared.previews import TTL_S, Previews
from tests.contracts.jobs import new_spec
from worker.progress import Progress
from worker.station import Station

STEPS = 8


@dataclass
class Parts:
    """A job that is being drawn, and what its worker has of the station."""

    redis: Redis
    store: JobStore
    job: Job
    preview: Callable[[int], NDArray[np.uint8]]
    previews: Any
    pulse: Any = field(default_factory=lambda: cast("Any", type("Pulse", (), {"send": lambda self, message: None})()))

    @property
    def pipeline(self) -> Any:
        return self

    def draw(self) -> None:
        progress = Progress(self.job, cast(Station, self))
        for step in range(1, STEPS + 1):
            progress(step, STEPS)
            # The record hears of each step: an unsent one would be passed over for the next.
            deadline_s = time.monotonic() + 10
            while self.store.get(self.job.id).step < step and time.monotonic() < deadline_s:
                time.sleep(0.005)
        progress.close()


@pytest.fixture
def redis() -> Redis:
    return fakeredis.FakeRedis(decode_responses=True)


def parts_of(redis: Redis, preview: Callable[[int], NDArray[np.uint8]], *, wanted: object = True) -> Parts:
    store = JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)
    spec = replace(new_spec(), input={"prompt": "100% red", "preview": wanted}, stream_token="secret")
    store.create(spec, body_hash="h", queue_max_jobs=10)
    job = store.claim(spec.id, worker="w", delivery_token="1")
    assert job is not None
    return Parts(redis, store, job, preview, Previews(redis, prefix="test:"))


def test_every_third_step_is_shown_and_the_latest_stays(redis: Redis) -> None:
    shown = iter(range(10))
    parts = parts_of(redis, lambda row: np.full((160, 160, 3), 20 * next(shown), np.uint8))
    parts.draw()
    with Image.open(io.BytesIO(parts.previews.get(parts.job.id))) as picture:
        assert (picture.format, picture.size) == ("WEBP", (128, 128))
        # Of the 1st, 4th and 7th step the third was the last.
        assert abs(np.asarray(picture).mean() - 40) < 4
    assert next(shown) == 3
    assert 0 < cast(int, redis.ttl(f"test:preview:{parts.job.id}")) <= TTL_S


@pytest.mark.parametrize("wanted", [False, None, "true"])
def test_nobody_looks_at_a_drawing_whose_order_wants_no_preview(redis: Redis, wanted: object) -> None:
    def preview(row: int) -> NDArray[np.uint8]:
        raise AssertionError("not asked for")

    parts = parts_of(redis, preview, wanted=wanted)
    parts.draw()
    assert parts.previews.get(parts.job.id) is None


def test_a_preview_that_fails_is_tried_once_and_the_drawing_goes_on(redis: Redis) -> None:
    tries = []

    def preview(row: int) -> NDArray[np.uint8]:
        tries.append(1)
        raise RenderFailed("no memory for this")

    parts = parts_of(redis, preview)
    parts.draw()
    assert (len(tries), parts.store.get(parts.job.id).step) == (1, STEPS)


def test_a_preview_that_cannot_be_kept_or_encoded_does_not_end_the_reports(redis: Redis) -> None:
    class Away:
        def put(self, job_id: str, picture: bytes) -> None:
            raise StoreUnavailable("away")

    parts = parts_of(redis, lambda row: np.zeros((8, 8, 3), np.uint8))
    parts.previews = Away()
    parts.draw()
    assert parts.store.get(parts.job.id).step == STEPS
    odd = parts_of(redis, lambda row: np.zeros((0, 0, 3), np.uint8))
    odd.draw()
    assert odd.store.get(odd.job.id).step == STEPS


def test_while_redis_is_away_a_step_waits_for_no_preview(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.progress.STORE_AWAY_S", 0.01)
    parts = parts_of(redis, lambda row: np.zeros((8, 8, 3), np.uint8))
    calls: list[str] = []
    back, renew, put = threading.Event(), parts.store.renew, parts.previews.put

    def try_renew(*given: Any, **named: Any) -> Any:
        calls.append("step")
        if len(calls) > 6:
            back.set()
        if not back.is_set():
            raise StoreUnavailable("away")
        return renew(*given, **named)

    def try_put(*given: Any) -> None:
        calls.append("preview")
        if not back.is_set():
            raise StoreUnavailable("away")
        put(*given)

    monkeypatch.setattr(parts.store, "renew", try_renew)
    monkeypatch.setattr(parts.previews, "put", try_put)
    progress = Progress(parts.job, cast(Station, parts))
    for step in range(1, STEPS + 1):
        progress(step, STEPS)
        tried = len(calls)
        while not back.is_set() and len(calls) == tried:
            time.sleep(0.005)
    progress.close()
    assert calls[: calls.index("step") + 6] == ["preview", "step", "step", "step", "step", "step", "step"]


def test_a_preview_goes_when_the_job_ends(redis: Redis) -> None:
    parts = parts_of(redis, lambda row: np.zeros((8, 8, 3), np.uint8))
    parts.draw()
    assert parts.previews.get(parts.job.id) is not None
    parts.store.let_go(parts.job.id, parts.job.fence)
    assert parts.previews.get(parts.job.id) is None


def test_what_is_no_picture_is_none(redis: Redis) -> None:
    redis.set("test:preview:a", "no base64!")
    assert Previews(redis, prefix="test:").get("a") is None
