"""Jobs that are drawn together, with a pipeline that draws nothing and a guardian that only listens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import fakeredis
import numpy as np
import pytest
from redis import Redis

from shared.errors import DeviceLost, InputInvalid, OutOfMemory, StoreUnavailable
from shared.job_store import JobStore
from shared.jobs import RenderSpec, Status
from shared.manifest import load_catalog
from shared.settings import Settings
from tests.contracts.jobs import MODEL, new_spec
from worker.batch_size import ALONE_S, BatchSize
from worker.duty import DutyMeter
from worker.progress import CancelRequested, JobLost, Progress
from worker.pulse import Broke, Holding, Message, Publishing, Settled
from worker.runner import WorkerBroken, run_jobs
from worker.spool import Spool
from worker.station import Pipeline, Station

SIZE, STEPS = 3, 4


class Forward(Pipeline):
    """Takes no time. `at_step(step)` is called before each step of a batch is told."""

    def __init__(self, at_step: Callable[[int], None] = lambda step: None) -> None:
        self.at_step = at_step
        self.alone: list[int] = []
        self.together: list[list[int]] = []
        self.steps = 0

    @property
    def provenance(self) -> dict[str, Any]:
        return {"device": "none"}

    def render(self, spec: RenderSpec, on_step: Callable[[int, int], None]) -> Any:
        self.alone.append(spec.seed)
        on_step(1, 1)
        return picture(spec)

    def render_batch(self, specs: Sequence[RenderSpec], on_step: Callable[[int, int], None]) -> list[Any]:
        self.together.append([spec.seed for spec in specs])
        for self.steps in range(1, STEPS + 1):
            self.at_step(self.steps)
            on_step(self.steps, STEPS)
        return [picture(spec) for spec in specs]


def picture(spec: RenderSpec) -> Any:
    return SimpleNamespace(pixels=np.full((64, 64, 3), spec.seed, np.uint8), duration_s=0.5)


class Bucket:
    """Keeps the pictures' first pixels by the job's id."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    def put(self, key: str, data: bytes, **_: object) -> None:
        self.stored[key] = data

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.stored if key.startswith(prefix)]

    def delete(self, key: str) -> None:
        del self.stored[key]


class Guardian:
    def __init__(self) -> None:
        self.heard: list[Message] = []

    def send(self, message: Message) -> None:
        self.heard.append(message)

    def about(self, kind: type[Message], ids: Sequence[str]) -> list[int]:
        """Which of the jobs were spoken of with such a message, by their place in `ids`."""
        return sorted({ids.index(message.job_id) for message in self.heard if isinstance(message, kind)})  # type: ignore[union-attr]


@pytest.fixture
def redis() -> Redis:
    return fakeredis.FakeRedis(decode_responses=True)


@pytest.fixture
def store(redis: Redis) -> JobStore:
    return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)


@pytest.fixture
def ids(store: JobStore) -> list[str]:
    """Three jobs that wait, of the seeds 0 to 2."""
    return [order(store, seed) for seed in range(SIZE)]


def order(store: JobStore, seed: int) -> str:
    spec = new_spec()
    spec = replace(spec, render=replace(spec.render, seed=seed))
    return store.create(spec, body_hash=str(seed), queue_max_jobs=10).job_id


def station(store: JobStore, pipeline: Pipeline, **changes: Any) -> Station:
    return Station(
        name="w",
        manifest=load_catalog(Settings().models_dir).by_slug(MODEL),
        store=store,
        previews=cast("Any", None),
        storage=cast("Any", Bucket()),
        pipeline=pipeline,
        pulse=cast("Any", Guardian()),
        spool=Spool(2, at_once=SIZE),
        duty=DutyMeter(),
        publish_limit_s=60,
        is_stopping=lambda: False,
        batch_size=BatchSize(SIZE),
        **changes,
    )


def work(store: JobStore, pipeline: Pipeline) -> Guardian:
    """Let a worker draw all that waits; returns what its guardian heard."""
    place = station(store, pipeline)
    try:
        run_jobs("a job that is done", place)
    finally:
        place.spool.wait_until_empty()
    return cast("Guardian", place.pulse)


def test_each_job_of_a_batch_ends_with_its_own_picture_log_and_steps(store: JobStore, ids: list[str]) -> None:
    pipeline = Forward()
    guardian = work(store, pipeline)
    jobs = [store.get(job_id) for job_id in ids]
    assert (pipeline.together, pipeline.alone) == ([[0, 1, 2]], [])
    assert {(job.status, job.fence, job.step) for job in jobs} == {(Status.SUCCEEDED, 1, STEPS)}
    assert [job.logs.splitlines()[0] for job in jobs] == [f"Using seed: {seed}" for seed in range(SIZE)]
    assert len({job.result.outputs[0].sha256 for job in jobs if job.result}) == SIZE
    for kind in (Holding, Publishing, Settled):
        assert guardian.about(kind, ids) == [0, 1, 2]
    assert guardian.about(Broke, ids) == []


def test_what_does_not_fill_a_batch_is_drawn_one_by_one(store: JobStore, ids: list[str]) -> None:
    more, pipeline = [order(store, seed) for seed in (3, 4)], Forward()
    work(store, pipeline)
    assert (pipeline.together, pipeline.alone) == ([[0, 1, 2]], [3, 4])
    assert {store.get(job_id).status for job_id in ids + more} == {Status.SUCCEEDED}


def script(monkeypatch: pytest.MonkeyPatch, errors: dict[tuple[int, int], Exception]) -> None:
    """Have the progress of the jobs of these seeds raise this at these steps."""

    class Scripted(Progress):
        def __call__(self, step: int, steps: int) -> None:
            super().__call__(step, steps)
            error = errors.get((self._job.spec.render.seed, step))
            if error is not None:
                raise error

    monkeypatch.setattr("worker.batch.Progress", Scripted)


def test_one_that_is_called_off_is_let_go_and_the_others_are_drawn(
    store: JobStore, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, {(1, 2): CancelRequested()})
    pipeline = Forward()
    guardian = work(store, pipeline)
    assert [store.get(job_id).status for job_id in ids] == [Status.SUCCEEDED, Status.CANCELED, Status.SUCCEEDED]
    assert pipeline.steps == STEPS and guardian.about(Settled, ids) == [0, 1, 2]


def test_one_that_was_lost_is_left_to_its_new_worker_and_the_others_are_drawn(
    store: JobStore, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(step: int) -> None:
        if step == 2:
            store.expire(ids[1], fence=1)
            store.claim(ids[1], worker="other", delivery_token="other")

    script(monkeypatch, {(1, 2): JobLost()})
    guardian = work(store, Forward(lose))
    jobs = [store.get(job_id) for job_id in ids]
    assert [job.status for job in jobs] == [Status.SUCCEEDED, Status.RUNNING, Status.SUCCEEDED]
    assert (jobs[1].worker, jobs[1].fence) == ("other", 2)
    assert guardian.about(Settled, ids) == [0, 1, 2]


def test_a_batch_that_nobody_wants_any_more_is_not_drawn_to_the_end(
    store: JobStore, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, {(0, 1): CancelRequested(), (1, 2): CancelRequested(), (2, 2): CancelRequested()})
    pipeline = Forward()
    work(store, pipeline)
    assert {store.get(job_id).status for job_id in ids} == {Status.CANCELED}
    assert pipeline.steps == 2


def test_when_a_batch_fails_each_is_drawn_alone_and_none_is_charged(store: JobStore, ids: list[str]) -> None:
    def fail(step: int) -> None:
        if step == 2:
            raise OutOfMemory("too many at once")

    pipeline = Forward(fail)
    guardian = work(store, pipeline)
    assert (pipeline.together, pipeline.alone) == ([[0, 1, 2]], [0, 1, 2])
    assert {(job.status, job.fence, job.crashes) for job in map(store.get, ids)} == {(Status.SUCCEEDED, 2, 0)}
    assert guardian.about(Broke, ids) == []


@pytest.mark.parametrize("error", [DeviceLost("gone"), RuntimeError("nobody foresaw this")])
def test_what_breaks_the_worker_is_charged_to_the_whole_batch(store: JobStore, ids: list[str], error: Exception) -> None:
    def fail(step: int) -> None:
        raise error

    place = station(store, Forward(fail))
    with pytest.raises(WorkerBroken):
        run_jobs("a job that is done", place)
    guardian = cast("Guardian", place.pulse)
    assert guardian.about(Broke, ids) == [0, 1, 2] and guardian.about(Settled, ids) == []


def test_one_that_was_called_off_is_not_charged_for_what_broke_later(
    store: JobStore, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(step: int) -> None:
        if step == 3:
            raise DeviceLost("gone")

    script(monkeypatch, {(1, 2): CancelRequested()})
    place = station(store, Forward(fail))
    with pytest.raises(WorkerBroken):
        run_jobs("a job that is done", place)
    assert cast("Guardian", place.pulse).about(Broke, ids) == [0, 2]


def test_a_batch_that_cannot_begin_is_charged_to_all(store: JobStore, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("worker.batch.Progress", no_thread)
    place = station(store, Forward())
    with pytest.raises(WorkerBroken):
        run_jobs("a job that is done", place)
    assert cast("Guardian", place.pulse).about(Broke, ids) == [0, 1, 2]


def test_after_too_little_memory_jobs_are_drawn_alone_for_a_while(store: JobStore, ids: list[str]) -> None:
    now_s, fits = 0.0, False

    def fail(step: int) -> None:
        if not fits:
            raise OutOfMemory("too many at once")

    pipeline = Forward(fail)
    place = replace(station(store, pipeline), batch_size=BatchSize(SIZE, clock=lambda: now_s))

    def work_on() -> None:
        run_jobs("a job that is done", place)
        place.spool.wait_until_empty()

    work_on()
    for seed in (3, 4, 5):
        order(store, seed)
    now_s, fits = ALONE_S - 1, True
    work_on()
    assert (pipeline.together, pipeline.alone) == ([[0, 1, 2]], [0, 1, 2, 3, 4, 5])
    for seed in (6, 7, 8):
        order(store, seed)
    now_s = ALONE_S
    work_on()
    assert pipeline.together == [[0, 1, 2], [6, 7, 8]]


def test_an_order_that_is_refused_does_not_end_batches(store: JobStore, ids: list[str]) -> None:
    def refuse(step: int) -> None:
        raise InputInvalid("too long")

    place = station(store, Forward(refuse))
    run_jobs("a job that is done", place)
    assert place.batch_size.now() == SIZE


def test_a_job_store_that_is_away_does_not_stop_the_drawing(
    store: JobStore, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is called off, and nobody can let go of it until the others are drawn."""
    pipeline, let_go = Forward(), store.let_go

    def away(job_id: str, fence: int) -> Any:
        if pipeline.steps < STEPS:
            raise StoreUnavailable("away")
        return let_go(job_id, fence)

    script(monkeypatch, {(1, 2): CancelRequested()})
    monkeypatch.setattr(store, "let_go", away)
    monkeypatch.setattr("worker.publish.STORE_GAP_S", 0.01)
    work(store, pipeline)
    assert [store.get(job_id).status for job_id in ids] == [Status.SUCCEEDED, Status.CANCELED, Status.SUCCEEDED]
