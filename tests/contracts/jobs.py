"""The job store's contract: the same tests run on fakeredis (tests/unit) and on the real server (tests/integration)."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import pytest
from redis import Redis

from shared.errors import IdempotencyConflict, NotFound, QueueFull
from shared.job_store import Beat, Finish, JobStore
from shared.jobs import Event, JobError, JobSpec, Lane, Output, RenderSpec, Result, Status, new_id
from shared.outbox import DeliveryState, Outbox

MODEL = "granule/rubber-tile-mini"


def new_spec(**changes: object) -> JobSpec:
    spec = JobSpec(
        id=new_id(),
        tenant="shop",
        model=MODEL,
        version="0" * 64,
        lane=Lane.NORMAL,
        input={"prompt": "50% red, 50% black"},
        render=RenderSpec("50% red, 50% black", None, 42, 20, 7.0, 1024, 1024, "png", 90),
        mix=[("red", 50.0), ("black", 50.0)],
        warnings=[],
        base_url="http://127.0.0.1:8000",
        file_token=new_id(),
        filename="tile.png",
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def new_result(key: str = "outputs/x/1/0.png") -> Result:
    return Result([Output(key, "tile.png", "image/png", 3, "ab" * 32)], 1.5, {"device": "cpu"})


class JobStoreContract:
    """Subclasses provide `redis`, a client of an empty server."""

    @pytest.fixture
    def store(self, redis: Redis) -> JobStore:
        return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)

    @pytest.fixture
    def hasty(self, redis: Redis) -> JobStore:
        """The same records, with leases of 50 ms."""
        return JobStore(redis, prefix="test:", retention_s=3600, lease_s=0.05, max_attempts=3)

    @pytest.fixture
    def outbox(self, redis: Redis) -> Outbox:
        return Outbox(redis, prefix="test:")

    def submit(self, store: JobStore, **changes: object) -> str:
        spec = new_spec(**changes)
        return store.create(spec, body_hash="h", queue_max_jobs=100).job_id

    # -- create

    def test_a_created_job_waits_and_reads_back_as_it_was_given(self, store: JobStore) -> None:
        spec = new_spec(webhook="https://shop.example/hook", webhook_events=[Event.COMPLETED])
        assert store.create(spec, body_hash="h", queue_max_jobs=1).is_new
        job = store.get(spec.id)
        assert job.spec == spec
        assert job.status is Status.QUEUED
        assert abs(job.created_ms - time.time() * 1000) < 5_000

    def test_creating_again_after_a_lost_reply_makes_no_second_job(self, store: JobStore) -> None:
        spec = new_spec()
        store.create(spec, body_hash="h", queue_max_jobs=100)
        again = store.create(spec, body_hash="h", queue_max_jobs=100)
        assert again.job_id == spec.id and again.is_new
        repeat = store.create(replace(spec, file_token=new_id()), body_hash="h", queue_max_jobs=100)
        assert repeat.job_id == spec.id and not repeat.is_new
        assert store.depth(MODEL) == 1

    def test_a_key_answers_with_its_first_job_and_refuses_another_body(self, store: JobStore) -> None:
        first = store.create(new_spec(), body_hash="h", queue_max_jobs=100, idempotency_key="k")
        again = store.create(new_spec(), body_hash="h", queue_max_jobs=100, idempotency_key="k")
        assert again.job_id == first.job_id and not again.is_new
        with pytest.raises(IdempotencyConflict):
            store.create(new_spec(), body_hash="other", queue_max_jobs=100, idempotency_key="k")
        other_tenant = store.create(new_spec(tenant="other"), body_hash="other", queue_max_jobs=100, idempotency_key="k")
        assert other_tenant.is_new

    def test_an_id_that_somebody_used_is_refused_to_others(self, store: JobStore) -> None:
        spec = new_spec()
        store.create(spec, body_hash="h", queue_max_jobs=100)
        with pytest.raises(IdempotencyConflict):
            store.create(replace(spec, tenant="other"), body_hash="h", queue_max_jobs=100)

    def test_a_clock_that_was_set_back_makes_no_order_a_repeat(self, store: JobStore, redis: Redis) -> None:
        self.submit(store)
        [recent] = redis.keys("test:recent:*")
        redis.hincrby(recent, "at_ms", 60_000)
        assert store.create(new_spec(), body_hash="h", queue_max_jobs=100).is_new

    def test_twenty_creates_at_once_with_one_key_make_one_job(self, store: JobStore) -> None:
        ids: list[str] = []

        def create() -> None:
            ids.append(store.create(new_spec(), body_hash="h", queue_max_jobs=100, idempotency_key="k").job_id)

        threads = [threading.Thread(target=create) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ids) == 20 and len(set(ids)) == 1
        assert store.depth(MODEL) == 1

    def test_a_full_queue_records_nothing(self, store: JobStore) -> None:
        self.submit(store)
        spec = new_spec()
        with pytest.raises(QueueFull) as refusal:
            store.create(spec, body_hash="h", queue_max_jobs=1, idempotency_key="k")
        assert refusal.value.retry_after_s > 0
        with pytest.raises(NotFound):
            store.get(spec.id)
        assert store.create(spec, body_hash="h", queue_max_jobs=2, idempotency_key="k").is_new

    # -- claim and finish

    def test_one_claim_wins(self, store: JobStore) -> None:
        job_id = self.submit(store)
        job = store.claim(job_id, worker="a", delivery_token="1")
        assert job is not None and job.status is Status.RUNNING and job.fence == 1 and job.worker == "a"
        assert store.claim(job_id, worker="b", delivery_token="2") is None
        assert store.depth(MODEL) == 0

    def test_a_claim_whose_reply_was_lost_is_the_same_claim(self, store: JobStore) -> None:
        job_id = self.submit(store)
        first = store.claim(job_id, worker="a", delivery_token="1")
        again = store.claim(job_id, worker="a", delivery_token="1")
        assert first is not None and again is not None and first.fence == again.fence == 1

    def test_the_lease_of_a_claim_whose_reply_was_lost_begins_with_the_reply(self, store: JobStore, redis: Redis) -> None:
        named, first = self.submit(store), self.submit(store)
        for _ in range(2):
            store.claim(named, worker="a", delivery_token="1")
            store.claim_next(MODEL, worker="a", token="2")
            leases = redis.zscore("test:leases", named), redis.zscore("test:leases", first)
            redis.zadd("test:leases", {named: 1, first: 1})
        assert all(lease is not None and lease > 1 for lease in leases)

    def test_claiming_what_does_not_exist_is_nothing_to_do(self, store: JobStore) -> None:
        assert store.claim("nowhere", worker="a", delivery_token="1") is None

    def test_the_line_is_taken_by_lane_and_age_and_each_job_once(self, store: JobStore) -> None:
        low, first, second, high = (self.submit(store, lane=lane) for lane in (Lane.LOW, Lane.NORMAL, Lane.NORMAL, Lane.HIGH))
        self.submit(store, model="granule/other")
        taken = [store.claim_next(MODEL, worker="a", token=str(n)) for n in range(5)]
        assert [job and job.id for job in taken] == [high, first, second, low, None]
        assert taken[0] is not None and (taken[0].status, taken[0].fence, taken[0].worker) == (Status.RUNNING, 1, "a")

    def test_taking_again_after_a_lost_reply_takes_the_same_job(self, store: JobStore) -> None:
        first, second = self.submit(store), self.submit(store)
        for _ in range(2):
            again = store.claim_next(MODEL, worker="a", token="1")
            assert again is not None and (again.id, again.fence) == (first, 1)
        other = store.claim_next(MODEL, worker="b", token="1")
        assert other is not None and other.id == second

    def test_what_was_taken_and_lost_meanwhile_is_not_handed_out_again(self, store: JobStore) -> None:
        job_id = self.submit(store)
        store.claim_next(MODEL, worker="a", token="1")
        store.release(job_id, 1)
        assert store.claim_next(MODEL, worker="a", token="1") is None
        again = store.claim_next(MODEL, worker="a", token="2")
        assert again is not None and again.fence == 2

    def test_an_id_without_a_record_does_not_block_the_line(self, store: JobStore, redis: Redis) -> None:
        redis.zadd(f"test:queued:{MODEL}:normal", {"damaged": 0})
        job_id = self.submit(store)
        taken = store.claim_next(MODEL, worker="a", token="1")
        assert taken is not None and taken.id == job_id

    def test_a_job_knows_how_long_it_waited_for_its_present_worker(self, store: JobStore) -> None:
        job_id = self.submit(store)
        time.sleep(0.05)
        first = store.claim_next(MODEL, worker="a", token="1")
        store.release(job_id, 1)
        second = store.claim_next(MODEL, worker="a", token="2")
        assert first is not None and first.waited_s >= 0.05
        assert second is not None and second.waited_s < 0.05

    def test_a_log_is_kept_once_however_its_parts_are_sent_again(self, store: JobStore) -> None:
        job_id = self.submit(store)
        store.claim(job_id, worker="a", delivery_token="1")
        for step, log, log_from in ((1, "one\n", 0), (1, "one\nnote\n", 0), (2, "two\n", 9), (2, "two\nlast\n", 9)):
            assert store.renew(job_id, 1, step=step, log=log, log_from=log_from) is Beat.HELD
        job = store.get(job_id)
        assert job.logs == "one\nnote\ntwo\nlast\n" and job.logged_bytes == len(job.logs)
        store.release(job_id, 1)
        store.claim(job_id, worker="b", delivery_token="2")
        store.renew(job_id, 2, step=1, log="again\n", log_from=0)
        assert store.get(job_id).logs.endswith("last\nagain\n")

    def test_a_log_after_lines_that_the_record_lost_is_kept_whole_and_once(self, store: JobStore) -> None:
        job_id = self.submit(store)
        store.claim(job_id, worker="a", delivery_token="1")
        for step, log, log_from in ((2, "the second\n", 4), (2, "the second\n", 4), (3, "third\n", 15)):
            store.renew(job_id, 1, step=step, log=log, log_from=log_from)
        assert store.get(job_id).logs == "the second\nthird\n"

    def test_a_finished_job_keeps_its_first_outcome(self, store: JobStore) -> None:
        job_id = self.submit(store)
        store.claim(job_id, worker="a", delivery_token="1")
        assert store.succeed(job_id, 1, new_result()) is Finish.DONE
        assert store.succeed(job_id, 1, new_result()) is Finish.ALREADY_DONE
        assert store.fail(job_id, 2, JobError("render_failed", "late")) is Finish.REFUSED
        job = store.get(job_id)
        assert job.status is Status.SUCCEEDED and job.result == new_result() and job.error is None
        assert job.completed_ms is not None and job.started_ms is not None
        assert store.claim(job_id, worker="b", delivery_token="2") is None

    def test_a_zombie_can_neither_renew_nor_finish(self, hasty: JobStore) -> None:
        job_id = self.submit(hasty)
        hasty.claim(job_id, worker="a", delivery_token="1")
        time.sleep(0.1)
        assert hasty.expire(job_id) is Status.QUEUED
        second = hasty.claim(job_id, worker="b", delivery_token="2")
        assert second is not None and second.fence == 2
        assert hasty.renew(job_id, 1) is Beat.LOST
        assert hasty.succeed(job_id, 1, new_result()) is Finish.REFUSED
        assert hasty.succeed(job_id, 2, new_result("outputs/x/2/0.png")) is Finish.DONE
        assert hasty.succeed(job_id, 1, new_result()) is Finish.REFUSED
        result = hasty.get(job_id).result
        assert result is not None and result.outputs[0].key == "outputs/x/2/0.png"

    def test_a_failed_job_says_why(self, store: JobStore) -> None:
        job_id = self.submit(store)
        store.claim(job_id, worker="a", delivery_token="1")
        assert store.fail(job_id, 1, JobError("out_of_memory", "Größe")) is Finish.DONE
        assert store.get(job_id).error == JobError("out_of_memory", "Größe")

    # -- signs of life

    def test_renewing_records_the_step_once_and_never_goes_back(self, store: JobStore) -> None:
        job_id = self.submit(store)
        store.claim(job_id, worker="a", delivery_token="1")
        assert store.renew(job_id, 1, step=2, log="two\n") is Beat.HELD
        assert store.renew(job_id, 1, step=2, log="two\n") is Beat.HELD
        assert store.renew(job_id, 1, step=1, log="one\n") is Beat.HELD
        job = store.get(job_id)
        assert job.step == 2 and job.logs == "two\n"

    def test_a_renewed_lease_does_not_run_out(self, redis: Redis, hasty: JobStore, store: JobStore) -> None:
        job_id = self.submit(hasty)
        hasty.claim(job_id, worker="a", delivery_token="1")
        time.sleep(0.1)
        assert hasty.expired_leases() == [job_id]
        assert store.renew(job_id, 1) is Beat.HELD
        assert store.expired_leases() == []
        assert store.expire(job_id) is None

    # -- giving back

    def test_a_dead_workers_job_goes_first(self, store: JobStore) -> None:
        first, second = self.submit(store), self.submit(store)
        store.claim(second, worker="a", delivery_token="1")
        assert store.expire(second, fence=1) is Status.QUEUED
        assert store.expire(second, fence=1) is Status.QUEUED  # the reply may have been lost
        assert store.expire(second) is None
        assert store.position(store.get(second)) == 0
        assert store.position(store.get(first)) == 1
        assert store.get(second).crashes == 1

    def test_the_third_crash_fails_the_job_and_nothing_else(self, store: JobStore) -> None:
        poison, other = self.submit(store), self.submit(store)
        for fence in (1, 2, 3):
            assert store.get(poison).status is Status.QUEUED
            store.claim(poison, worker="a", delivery_token=str(fence))
            store.expire(poison, fence=fence)
        job = store.get(poison)
        assert job.status is Status.FAILED and job.error is not None and job.error.code == "worker_lost"
        assert store.get(other).status is Status.QUEUED

    def test_a_released_job_is_not_charged(self, store: JobStore) -> None:
        job_id = self.submit(store)
        store.claim(job_id, worker="a", delivery_token="1")
        assert store.release(job_id, 1) is Status.QUEUED
        assert store.release(job_id, 1) is Status.QUEUED  # the reply may have been lost
        store.claim(job_id, worker="b", delivery_token="2")
        assert store.release(job_id, 1) is None and store.expire(job_id, fence=1) is None
        assert store.get(job_id).crashes == 0

    # -- cancel

    def test_a_waiting_job_is_canceled_at_once(self, store: JobStore) -> None:
        job_id = self.submit(store)
        store.cancel(job_id)
        store.cancel(job_id)
        assert store.get(job_id).status is Status.CANCELED
        assert store.claim(job_id, worker="a", delivery_token="1") is None
        assert store.depth(MODEL) == 0

    def test_a_running_job_is_canceled_when_its_worker_lets_go(self, store: JobStore) -> None:
        job_id = self.submit(store)
        store.claim(job_id, worker="a", delivery_token="1")
        store.cancel(job_id, JobError("deadline", "too late"))
        assert store.get(job_id).status is Status.RUNNING
        assert store.renew(job_id, 1, step=1) is Beat.CANCEL
        assert store.let_go(job_id, 1) is Finish.DONE
        job = store.get(job_id)
        assert job.status is Status.CANCELED and job.error == JobError("deadline", "too late")

    def test_a_deadline_calls_a_running_job_off_once(self, store: JobStore) -> None:
        job_id = self.submit(store, cancel_after_s=0.001)
        store.claim(job_id, worker="a", delivery_token="1")
        time.sleep(0.01)
        assert store.overdue() == [job_id]
        store.cancel(job_id, JobError("deadline_passed", "too late"))
        assert store.overdue() == [] and store.release(job_id, 1) is Status.CANCELED

    def test_the_first_reason_to_call_a_job_off_stands(self, store: JobStore) -> None:
        late = JobError("deadline_passed", "too late")
        for first, second, error in ((None, late, None), (late, None, late)):
            job_id = self.submit(store)
            store.claim(job_id, worker="a", delivery_token="1")
            store.cancel(job_id, first)
            store.cancel(job_id, second)
            store.let_go(job_id, 1)
            assert store.get(job_id).error == error

    def test_a_canceled_job_of_a_dead_worker_is_not_rendered_again(self, store: JobStore) -> None:
        job_id = self.submit(store)
        store.claim(job_id, worker="a", delivery_token="1")
        store.cancel(job_id)
        assert store.expire(job_id, fence=1) is Status.CANCELED

    def test_canceling_what_does_not_exist_is_an_error(self, store: JobStore) -> None:
        with pytest.raises(NotFound):
            store.cancel("nowhere")

    def test_an_ended_job_stays_as_it_is(self, store: JobStore) -> None:
        job_id = self.submit(store)
        store.claim(job_id, worker="a", delivery_token="1")
        store.succeed(job_id, 1, new_result())
        store.cancel(job_id)
        assert store.get(job_id).status is Status.SUCCEEDED

    # -- order

    def test_position_counts_the_lanes_before(self, store: JobStore) -> None:
        low, normal, high = (self.submit(store, lane=lane) for lane in (Lane.LOW, Lane.NORMAL, Lane.HIGH))
        assert [store.position(store.get(job_id)) for job_id in (high, normal, low)] == [0, 1, 2]
        store.claim(high, worker="a", delivery_token="1")
        assert [store.position(store.get(job_id)) for job_id in (high, normal, low)] == [None, 0, 1]

    def test_listing_pages_backwards_through_ones_own_jobs(self, store: JobStore) -> None:
        ids = [self.submit(store) for _ in range(5)]
        self.submit(store, tenant="other")
        page = store.list_jobs("shop", limit=3)
        assert [job.id for job in page] == ids[:1:-1]
        assert [job.id for job in store.list_jobs("shop", before_seq=page[-1].seq, limit=3)] == ids[1::-1]

    def test_a_record_that_cannot_be_read_keeps_no_other_out_of_a_list(self, redis: Redis, store: JobStore) -> None:
        ids = [self.submit(store) for _ in range(7)]
        for job_id, damage in ((ids[1], "{}"), (ids[3], "no JSON"), (ids[4], "[]")):
            redis.hset(f"test:job:{job_id}", "spec", damage)
        redis.delete(f"test:job:{ids[6]}")
        assert [job.id for job in store.list_jobs("shop", limit=3)] == [ids[5], ids[2], ids[0]]
        assert [job.id for job in store.list_jobs("shop", limit=2)] == [ids[5], ids[2]]
        oldest = store.list_jobs(None, limit=2, oldest=True)
        assert [job.id for job in oldest] == [ids[2], ids[0]]
        assert [job.id for job in store.list_jobs("shop", after_seq=oldest[0].seq, limit=9, oldest=True)] == [ids[5]]

    def test_an_id_without_a_record_does_not_hide_a_moment(self, redis: Redis, store: JobStore) -> None:
        jobs = []
        for _ in range(6):
            jobs.append(store.get(self.submit(store)))
            time.sleep(0.002)
        for hole in (jobs[1], jobs[3], jobs[5]):
            redis.delete(f"test:job:{hole.id}")
        assert [store.seq_at("shop", jobs[n].created_ms) for n in (0, 2, 4)] == [jobs[n].seq for n in (0, 1, 3)]
        assert store.seq_at(None, jobs[5].created_ms) > jobs[4].seq

    def test_what_is_set_aside_is_listed_only_where_it_can_be_read(self, redis: Redis, store: JobStore) -> None:
        whole, broken, lost = (self.submit(store) for _ in range(3))
        redis.hset(f"test:job:{broken}", "spec", "{")
        redis.delete(f"test:job:{lost}")
        for job_id in (whole, broken, lost):
            store.set_aside(job_id)
        assert redis.zrange("test:jobs", 0, -1) == [whole]
        assert redis.zrange("test:jobs:shop", 0, -1) == [whole, lost]  # nobody knows any more whose it was
        assert redis.smembers("test:broken") == {whole, broken, lost}

    # -- lost messages

    def test_a_message_is_lost_when_the_queue_is_empty_or_a_later_job_was_claimed(self, redis: Redis, store: JobStore) -> None:
        first, second, third = (self.submit(store) for _ in range(3))
        redis.lpush("list", "message")
        assert store.lost(MODEL, ["list"], grace_s=0) == []
        store.claim(second, worker="a", delivery_token="1")
        assert store.lost(MODEL, ["list"], grace_s=0) == [first]
        redis.delete("list")
        assert store.lost(MODEL, ["list"], grace_s=0) == [first, third]
        assert store.lost(MODEL, ["list"], grace_s=3) == []

    # -- data

    def test_removed_data_leaves_a_readable_row(self, store: JobStore) -> None:
        job_id = self.submit(store)
        assert not store.remove_data(store.get(job_id))
        store.claim(job_id, worker="a", delivery_token="1")
        store.renew(job_id, 1, step=1, log="secret\n")
        store.succeed(job_id, 1, new_result())
        assert store.remove_data(store.get(job_id))
        job = store.get(job_id)
        assert job.data_removed and job.spec.input == {} and job.logs == "" and job.spec.render.prompt == ""
        assert job.result is not None and job.result.outputs == []
        assert job.status is Status.SUCCEEDED

    # -- waiting

    def test_waiting_ends_with_the_job(self, store: JobStore) -> None:
        job_id = self.submit(store)
        threading.Timer(0.2, store.cancel, [job_id]).start()
        started_s = time.monotonic()
        assert store.wait(job_id, 10).status is Status.CANCELED
        assert time.monotonic() - started_s < 5

    def test_waiting_gives_up_in_time(self, store: JobStore) -> None:
        job_id = self.submit(store)
        started_s = time.monotonic()
        assert store.wait(job_id, 0.3).status is Status.QUEUED
        assert 0.25 < time.monotonic() - started_s < 2

    # -- outbox

    def test_events_are_kept_as_they_were_when_they_happened(self, store: JobStore, outbox: Outbox) -> None:
        job_id = self.submit(store, webhook="https://shop.example/hook", webhook_events=list(Event))
        store.claim(job_id, worker="a", delivery_token="1")
        store.renew(job_id, 1, step=1, log="one\n")
        store.renew(job_id, 1, step=2, log="two\n")
        store.succeed(job_id, 1, new_result())
        store.succeed(job_id, 1, new_result())
        deliveries = outbox.of_job(job_id)
        assert [delivery.event for delivery in deliveries] == [Event.START, Event.LOGS, Event.OUTPUT, Event.COMPLETED]
        assert [delivery.seq for delivery in deliveries] == [1, 2, 3, 4]
        assert [delivery.job.status for delivery in deliveries] == [*[Status.RUNNING] * 3, Status.SUCCEEDED]
        assert deliveries[1].job.logs == "one\n"
        assert outbox.take_due(limit=10, hold_s=60, at_once=10) == [delivery.id for delivery in deliveries]
        assert outbox.take_due(limit=10, hold_s=60) == []

    def test_the_start_is_told_once_however_often_a_job_starts(self, store: JobStore, outbox: Outbox) -> None:
        job_id = self.submit(store, webhook="https://shop.example/hook", webhook_events=[Event.START])
        for fence in (1, 2):
            store.claim(job_id, worker="a", delivery_token=str(fence))
            store.release(job_id, fence)
        assert len(outbox.of_job(job_id)) == 1

    def test_a_delivery_is_tried_again_until_it_is_settled(self, store: JobStore, outbox: Outbox) -> None:
        job_id = self.submit(store, webhook="https://shop.example/hook", webhook_events=[Event.COMPLETED])
        store.cancel(job_id)
        [delivery_id] = outbox.take_due(limit=10, hold_s=60)
        first = outbox.get(delivery_id)
        assert first is not None
        assert outbox.fix_body(delivery_id, b"one") == outbox.fix_body(delivery_id, b"two") == b"one"
        outbox.settle(first, DeliveryState.PENDING, note="HTTP 500", retry_s=0)
        outbox.settle(first, DeliveryState.DEAD, note="the same try, told twice", retry_s=0)
        [again_id] = outbox.take_due(limit=10, hold_s=60)
        again = outbox.get(again_id)
        assert again is not None and again.attempts == 1 and again.body == b"one" and again.note == "HTTP 500"
        outbox.settle(again, DeliveryState.DELIVERED, note="HTTP 200")
        done = outbox.get(delivery_id)
        assert done is not None and done.state is DeliveryState.DELIVERED
        assert store.get(job_id).status is Status.CANCELED

    def test_the_record_is_readable_json(self, redis: Redis, store: JobStore) -> None:
        job_id = self.submit(store)
        assert json.loads(str(redis.hget(f"test:job:{job_id}", "spec")))["id"] == job_id
