from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import fakeredis
import numpy as np
import pytest

from shared.errors import StorageUnavailable
from shared.job_store import JobStore
from shared.jobs import RenderSpec, Status
from shared.manifest import load_catalog
from shared.settings import Settings
from tests.contracts.jobs import MODEL, new_spec
from worker.candidates import Best
from worker.duty import DutyMeter
from worker.publish import Drawn, publish
from worker.pulse import Pulse
from worker.spool import Spool
from worker.station import Station
from worker.trail import Trail

REFUSALS = 3
SECONDS_OF_REFUSALS = 0.5 + 1 + 2
OBJECTS = 4
"""Two pictures, each with a small version."""


@dataclass
class Clock:
    now_s: float = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class Reluctant:
    """A storage that takes each object at the fourth try."""

    tries: Counter[str] = field(default_factory=Counter)

    def put(self, key: str, data: bytes, **_: Any) -> None:
        self.tries[key] += 1
        if self.tries[key] <= REFUSALS:
            raise StorageUnavailable("away")

    def keys(self, prefix: str) -> list[str]:
        return []


class Silent:
    is_behind = False

    def close(self) -> None:
        """Nothing to end."""

    def report(self) -> None:
        """Nobody to tell."""


@pytest.fixture
def station(monkeypatch: pytest.MonkeyPatch) -> Iterator[Station]:
    monkeypatch.setattr("worker.publish.time", Clock())
    redis = fakeredis.FakeRedis(decode_responses=True)
    read_fd, write_fd = os.pipe()
    yield Station(
        name="w",
        manifest=load_catalog(Settings().models_dir).by_slug(MODEL),
        store=JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3),
        previews=cast("Any", None),
        storage=cast("Any", Reluctant()),
        pipeline=cast("Any", None),
        pulse=Pulse(write_fd),
        spool=Spool(0),
        duty=DutyMeter(),
        publish_limit_s=0,
        is_stopping=lambda: False,
    )
    os.close(write_fd)
    os.close(read_fd)


@pytest.mark.parametrize(
    ("publish_limit_s", "status"),
    [(OBJECTS * SECONDS_OF_REFUSALS, Status.SUCCEEDED), (OBJECTS * SECONDS_OF_REFUSALS - 1, Status.FAILED)],
)
def test_the_limit_is_one_for_all_pictures_of_a_job(station: Station, publish_limit_s: float, status: Status) -> None:
    render = RenderSpec("free text", None, 42, 20, 7.0, 64, 64, "png", 90, angles=(0, 30))
    spec = new_spec(render=render, mix=[])
    station.store.create(spec, body_hash="h", queue_max_jobs=10)
    job = station.store.claim(spec.id, worker="w", delivery_token="1")
    assert job is not None
    best = Best(np.zeros((64, 64, 3), np.uint8), 1.0, {"device": "cpu"}, 1)
    drawn = Drawn(job, best, cast("Any", Silent()), Trail(job, station.tracer))
    publish(drawn, replace(station, publish_limit_s=publish_limit_s))
    assert station.store.get(spec.id).status is status
