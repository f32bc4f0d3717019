"""The job store's contract, second half: dead workers, called-off jobs, lists and events."""

from __future__ import annotations

import json
import threading
import time

import pytest
from redis import Redis

from shared.errors import NotFound
from shared.job_store import Beat, Finish, JobStore
from shared.jobs import Event, JobError, Lane, Status
from shared.outbox import DeliveryState, Outbox
from tests.contracts.jobs import MODEL, JobStoreFixtures, new_result


class JobEndsContract(JobStoreFixtures):
    """What becomes of jobs that do not end as they were meant to, and of the records of those that did."""

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

    def test_a_claim_that_nobody_came_to_hold_is_not_charged_but_not_for_ever(self, store: JobStore, redis: Redis) -> None:
        job_id, crashes = self.submit(store), []
        while store.get(job_id).status is Status.QUEUED:
            store.claim(job_id, worker="a", delivery_token=str(len(crashes)))
            redis.zadd("test:leases", {job_id: 1})
            store.expire(job_id)
            crashes.append(store.get(job_id).crashes)
        assert crashes == [0, 0, 0, 1, 2, 3]

    def test_a_claim_that_somebody_came_to_hold_is_charged_when_its_lease_runs_out(self, store: JobStore, redis: Redis) -> None:
        job_id = self.submit(store)
        for fence in (1, 2):
            store.claim(job_id, worker="a", delivery_token=str(fence))
            if fence == 1:
                store.renew(job_id, fence)
            redis.zadd("test:leases", {job_id: 1})
            assert store.expire(job_id) is Status.QUEUED
            assert store.get(job_id).crashes == 1

    def test_a_clock_that_was_set_back_keeps_nobody_from_being_judged(self, store: JobStore, redis: Redis) -> None:
        held, waiting = self.submit(store), self.submit(store)
        store.claim(held, worker="a", delivery_token="1")
        seconds, _ = redis.time()
        later_ms = (seconds + 3600) * 1000
        redis.hset("test:amnesty", mapping={"asked_ms": later_ms, "until_ms": later_ms + 15_000})
        redis.zadd("test:leases", {held: later_ms + 15_000})
        redis.hset(f"test:job:{waiting}", "published_ms", later_ms)
        assert store.is_amnesty()
        for until_ms in (float(redis.hget("test:amnesty", "until_ms")), redis.zscore("test:leases", held)):
            assert seconds + 15 <= until_ms / 1000 <= seconds + 15 + 60
        assert store.lost(MODEL, ["nothing"]) == [waiting]

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
