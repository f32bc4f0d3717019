"""The store's moves in any order, by workers that died, came back or never got the reply, against a model of a few lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis import Redis

from shared.errors import InputInvalid
from shared.job_store import Beat, Finish, JobStore
from shared.jobs import TRANSITIONS, Event, JobError, Lane, Status
from shared.outbox import Outbox
from shared.redis_client import connect
from tests.contracts.jobs import MODEL, new_result, new_spec

MAX_ATTEMPTS = 2
LANES = list(Lane)
Reply = TypeVar("Reply")

SLOTS = st.integers(0, 2)
"""Few jobs at a time, so that the moves meet."""
CLAIMS = st.sampled_from([True, True, False])
BEHIND = st.sampled_from([0, 0, 0, 0, 0, 1, 2, -1])
"""How far the fence of a caller is behind the job's: mostly not at all."""

ENDS: dict[Status, Callable[[JobStore, str, int], Finish]] = {
    Status.SUCCEEDED: lambda store, job_id, fence: store.succeed(job_id, fence, new_result()),
    Status.FAILED: lambda store, job_id, fence: store.fail(job_id, fence, JobError("render_failed", "why")),
    Status.CANCELED: lambda store, job_id, fence: store.let_go(job_id, fence),
}


@dataclass
class Expected:
    """What must be true of one job."""

    order: int
    lane: Lane
    status: Status = Status.QUEUED
    fence: int = 0
    crashes: int = 0
    step: int = 0
    cancel: bool = False
    lapsed: bool = False
    held: bool = False
    unheld: int = 0
    dead: bool = False
    requeued: bool = False
    ended_by: int | None = None
    token: str | None = None
    events: list[Event] = field(default_factory=list)

    def holds(self, fence: int) -> bool:
        return self.status is Status.RUNNING and self.fence == fence

    def move(self, status: Status) -> None:
        assert status in TRANSITIONS[self.status]
        self.status, self.token = status, None
        if status is Status.QUEUED:
            self.lane = Lane.RECOVERY
        elif status is not Status.RUNNING:
            self.events += [Event.OUTPUT] * (status is Status.SUCCEEDED) + [Event.COMPLETED]

    def give_back(self) -> Status:
        self.move(Status.CANCELED if self.cancel else Status.QUEUED)
        return self.status


def on_a_job(move: Callable[..., None]) -> Callable[..., None]:
    """Let a rule take a slot and the move the id of the job in it, which is made if there is none."""

    def rule_body(self: StoreMachine, slot: int, **given: object) -> None:
        if slot not in self.ids:
            self.make(slot, Lane.NORMAL, lost=False)
        move(self, self.ids[slot], **given)

    rule_body.__name__ = move.__name__
    return rule_body


def by_its_worker(move: Callable[..., None]) -> Callable[..., None]:
    """Like `on_a_job`; mostly the job is claimed first if it waits, as workers do."""

    def rule_body(self: StoreMachine, job_id: str, claims: bool, **given: object) -> None:
        if claims:
            self.take(job_id, "a", lost=False)
        move(self, job_id, **given)

    rule_body.__name__ = move.__name__
    return on_a_job(rule_body)


class StoreMachine(RuleBasedStateMachine):
    """`lost` stands for a reply that did not arrive: the same call is made again, and its reply is the one that counts."""

    redis: Redis

    def __init__(self) -> None:
        super().__init__()
        self.redis.flushall()
        self.store = JobStore(self.redis, prefix="test:", retention_s=3600, lease_s=3600, max_attempts=MAX_ATTEMPTS)
        self.outbox = Outbox(self.redis, prefix="test:")
        self.expected: dict[str, Expected] = {}
        self.ids: dict[int, str] = {}
        self.created = self.tokens = 0

    def call(self, lost: bool, move: Callable[[], Reply]) -> Reply:
        if lost:
            with suppress(InputInvalid):
                move()
        return move()

    def make(self, slot: int, lane: Lane, *, lost: bool) -> None:
        spec = new_spec(lane=lane, webhook="https://shop.example.com/hook", webhook_events=list(Event))
        created = self.call(lost, lambda: self.store.create(spec, body_hash="h", queue_max_jobs=10_000))
        assert created.is_new
        self.created += 1
        self.expected[spec.id] = Expected(order=self.created, lane=lane)
        self.ids[slot] = spec.id

    def take(self, job_id: str, worker: str, *, lost: bool) -> None:
        job, token = self.expected[job_id], str(self.tokens)
        self.tokens += 1
        claimed = self.call(lost, lambda: self.store.claim(job_id, worker=worker, delivery_token=token))
        if job.status is not Status.QUEUED:
            assert claimed is None
            return
        self.start(job, token)
        assert claimed is not None
        assert (claimed.status, claimed.fence, claimed.worker) == (Status.RUNNING, job.fence, worker)

    def start(self, job: Expected, token: str) -> None:
        job.move(Status.RUNNING)
        job.fence, job.step, job.lapsed, job.held, job.token = job.fence + 1, 0, False, False, token
        job.events += [Event.START] * (job.fence == 1)

    def line(self) -> list[str]:
        waiting = [(LANES.index(job.lane), job.order, job_id) for job_id, job in self.expected.items()]
        return [job_id for *_, job_id in sorted(waiting) if self.expected[job_id].status is Status.QUEUED]

    @rule(slot=SLOTS, lane=st.sampled_from([Lane.HIGH, Lane.NORMAL, Lane.LOW]), lost=st.booleans())
    def create(self, slot: int, lane: Lane, lost: bool) -> None:
        if slot not in self.ids or self.expected[self.ids[slot]].status in ENDS:
            self.make(slot, lane, lost=lost)

    @rule(slot=SLOTS, worker=st.sampled_from("abc"), lost=st.booleans())
    @on_a_job
    def claim(self, job_id: str, worker: str, lost: bool) -> None:
        self.take(job_id, worker, lost=lost)

    @rule(worker=st.sampled_from("abc"), lost=st.booleans())
    def claim_next(self, worker: str, lost: bool) -> None:
        token = str(self.tokens)
        line = self.line()
        taken = self.call(lost, lambda: self.store.claim_next(MODEL, worker=worker, token=token))
        if not line:
            assert taken is None
            return
        self.tokens += 1
        job = self.expected[line[0]]
        self.start(job, token)
        assert taken is not None
        assert (taken.id, taken.status, taken.fence, taken.worker) == (line[0], Status.RUNNING, job.fence, worker)

    @rule(worker=st.sampled_from("abc"), lost=st.booleans())
    def claim_batch(self, worker: str, lost: bool) -> None:
        token, line = str(self.tokens), self.line()
        lanes = [self.expected[job_id].lane for job_id in line[:2]]
        size = 2 if len(lanes) == 2 and lanes[0] is lanes[1] is not Lane.RECOVERY else 1
        taken = self.call(lost, lambda: self.store.claim_batch(MODEL, worker=worker, token=token, size=2))
        assert [job.id for job in taken] == line[:size]
        self.tokens += bool(taken)
        for job in taken:
            self.start(self.expected[job.id], token)
            assert (job.status, job.fence, job.worker) == (Status.RUNNING, self.expected[job.id].fence, worker)

    @rule(slot=SLOTS, worker=st.sampled_from("abc"))
    @on_a_job
    def claim_again(self, job_id: str, worker: str) -> None:
        job = self.expected[job_id]
        if job.token is not None:
            again = self.store.claim(job_id, worker=worker, delivery_token=job.token)
            assert again is not None and again.fence == job.fence
            job.lapsed = False

    @rule(slot=SLOTS, claims=CLAIMS, behind=BEHIND, step=st.integers(1, 20), lost=st.booleans())
    @by_its_worker
    def renew(self, job_id: str, behind: int, step: int, lost: bool) -> None:
        job, fence = self.expected[job_id], self.expected[job_id].fence - behind
        beat = self.call(lost, lambda: self.store.renew(job_id, fence, step=step))
        if job.holds(fence):
            job.step, job.lapsed, job.held = max(job.step, step), False, True
            assert beat is (Beat.CANCEL if job.cancel else Beat.HELD)
        else:
            assert beat is Beat.LOST

    @rule(slot=SLOTS, claims=CLAIMS, behind=BEHIND, end=st.sampled_from(list(ENDS)), lost=st.booleans())
    @by_its_worker
    def finish(self, job_id: str, behind: int, end: Status, lost: bool) -> None:
        job, fence = self.expected[job_id], self.expected[job_id].fence - behind
        finish = self.call(lost, lambda: ENDS[end](self.store, job_id, fence))
        if job.holds(fence):
            job.move(end)
            job.ended_by = fence
            assert finish is (Finish.ALREADY_DONE if lost else Finish.DONE)
        else:
            assert finish is (Finish.ALREADY_DONE if job.ended_by == fence else Finish.REFUSED)

    @rule(slot=SLOTS, claims=CLAIMS, behind=BEHIND, lost=st.booleans())
    @by_its_worker
    def release(self, job_id: str, behind: int, lost: bool) -> None:
        job, fence = self.expected[job_id], max(1, self.expected[job_id].fence - behind)
        status = self.call(lost, lambda: self.store.release(job_id, fence))
        if job.holds(fence):
            job.give_back()
            assert status is job.status or (lost and status is None and job.status is Status.CANCELED)
        else:
            assert status is (Status.QUEUED if job.status is Status.QUEUED and job.fence == fence else None)

    @rule(slot=SLOTS, claims=CLAIMS, behind=BEHIND, lost=st.booleans())
    @by_its_worker
    def bury(self, job_id: str, behind: int, lost: bool) -> None:
        job, fence = self.expected[job_id], max(1, self.expected[job_id].fence - behind)
        status = self.call(lost, lambda: self.store.expire(job_id, fence=fence))
        if job.holds(fence):
            self.crash(job)
            assert status is job.status or (lost and status is None and job.status is not Status.QUEUED)
        else:
            assert status is (Status.QUEUED if job.status is Status.QUEUED and job.fence == fence else None)

    @rule(slot=SLOTS, claims=CLAIMS)
    @by_its_worker
    def fall_silent(self, job_id: str) -> None:
        job = self.expected[job_id]
        if job.status is Status.RUNNING:
            self.redis.zadd("test:leases", {job_id: 0})
            job.lapsed = True

    @rule(slot=SLOTS, claims=CLAIMS, lost=st.booleans())
    @by_its_worker
    def sweep(self, job_id: str, lost: bool) -> None:
        job = self.expected[job_id]
        status = self.call(lost, lambda: self.store.expire(job_id))
        if job.status is Status.RUNNING and job.lapsed:
            job.unheld += not job.held
            if job.held or job.unheld > MAX_ATTEMPTS:
                self.crash(job)
            else:
                job.give_back()
            assert status is (None if lost else job.status)
        else:
            assert status is None

    @rule(slot=SLOTS, claims=CLAIMS, lost=st.booleans())
    @by_its_worker
    def cancel(self, job_id: str, lost: bool) -> None:
        job = self.expected[job_id]
        self.call(lost, lambda: self.store.cancel(job_id))
        if job.status is Status.QUEUED:
            job.move(Status.CANCELED)
        elif job.status is Status.RUNNING:
            job.cancel = True

    @rule(slot=SLOTS)
    @on_a_job
    def be_poison(self, job_id: str) -> None:
        job = self.expected[job_id]
        while job.status not in ENDS:
            self.take(job_id, "a", lost=False)
            self.store.expire(job_id, fence=job.fence)
            self.crash(job)

    @rule(slot=SLOTS, lost=st.booleans())
    @on_a_job
    def requeue(self, job_id: str, lost: bool) -> None:
        job = self.expected[job_id]
        if job.dead:
            self.call(lost, lambda: self.store.requeue(job_id))
            job.move(Status.QUEUED)
            job.crashes, job.unheld, job.dead, job.requeued = 0, 0, False, True
        elif job.requeued and job.status in (Status.QUEUED, Status.RUNNING):
            self.call(lost, lambda: self.store.requeue(job_id))
        else:
            with pytest.raises(InputInvalid):
                self.call(lost, lambda: self.store.requeue(job_id))

    @rule(slot=SLOTS)
    @on_a_job
    def forget(self, job_id: str) -> None:
        job = self.store.get(job_id)
        over = job.status in ENDS
        assert self.store.remove_data(job) is over
        assert self.store.purge(job_id) is over
        if over:
            del self.expected[job_id]
            self.ids = {slot: other for slot, other in self.ids.items() if other != job_id}
            assert not self.redis.keys(f"test:*{job_id}*")

    def crash(self, job: Expected) -> None:
        job.crashes += 1
        if job.crashes < MAX_ATTEMPTS or job.cancel:
            job.give_back()
        else:
            job.move(Status.FAILED)
            job.dead = True

    # -- what is true after every move

    @invariant()
    def records_are_as_expected(self) -> None:
        for job_id, expected in self.expected.items():
            job = self.store.get(job_id)
            found = (job.status, job.fence, job.crashes, job.cancel_requested)
            assert found == (expected.status, expected.fence, expected.crashes, expected.cancel)
            assert (job.completed_ms is not None) is (expected.status in ENDS)
            assert (job.worker is not None) is (expected.status is Status.RUNNING)
            if expected.status is Status.RUNNING:
                assert job.step == expected.step

    @invariant()
    def every_event_is_told_once(self) -> None:
        for job_id, expected in self.expected.items():
            assert [delivery.event for delivery in self.outbox.of_job(job_id)] == expected.events

    @invariant()
    def indexes_hold_what_the_records_say(self) -> None:
        def ids(key: str) -> set[str]:
            return set(self.redis.zrange(f"test:{key}", 0, -1))

        def having(condition: Callable[[Expected], bool]) -> set[str]:
            return {job_id for job_id, job in self.expected.items() if condition(job)}

        assert ids("leases") == ids(f"running:{MODEL}") == having(lambda job: job.status is Status.RUNNING)
        assert set(self.store.expired_leases()) == having(lambda job: job.status is Status.RUNNING and job.lapsed)
        assert ids("dead") == having(lambda job: job.dead)
        assert ids("expiring") == having(lambda job: job.status in ENDS)

    @invariant()
    def whoever_waits_keeps_the_place(self) -> None:
        line = self.line()
        assert self.store.depth(MODEL) == len(line) == self.redis.scard("test:waiting:shop")
        assert [self.store.position(self.store.get(job_id)) for job_id in line] == list(range(len(line)))


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    # A call that takes longer is sent a second time by itself, and the model knows nothing of that.
    with connect(redis_url, timeout_s=120) as client:
        yield client


def test_no_order_of_moves_and_no_lost_reply_breaks_the_record(redis: Redis) -> None:
    class Machine(StoreMachine):
        pass

    Machine.redis = redis
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), database=None
        ),
    )
