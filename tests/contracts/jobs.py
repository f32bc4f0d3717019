"""The job store's contract: the same tests run on fakeredis (tests/unit) and on the real server (tests/integration)."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from redis import Redis

from shared.errors import IdempotencyConflict, NotFound, QueueFull
from shared.job_store import Beat, Finish, JobStore
from shared.jobs import Event, JobError, JobSpec, Lane, Output, RenderSpec, Result, Status, new_id
from shared.outbox import Outbox

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


class JobStoreFixtures:
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


class JobStoreContract(JobStoreFixtures):
    """A job from its order to its outcome."""

    # -- create

    def test_a_created_job_waits_and_reads_back_as_it_was_given(self, store: JobStore) -> None:
        spec = new_spec(webhook="https://shop.example/hook", webhook_events=[Event.COMPLETED])
        assert store.create(spec, body_hash="h", queue_max_jobs=1).is_new
        job = store.get(spec.id)
        assert job.spec == spec
        assert job.status is Status.QUEUED
        assert abs(job.created_ms - time.time() * 1000) < 5_000

    def test_a_trace_goes_with_the_job_and_its_messages_and_is_no_part_of_the_order(
        self, store: JobStore, outbox: Outbox
    ) -> None:
        spec = new_spec(webhook="https://shop.example/hook", webhook_events=[Event.START])
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        store.create(spec, body_hash="h", queue_max_jobs=10, idempotency_key="k", traceparent=traceparent)
        claimed = store.claim(spec.id, worker="a", delivery_token="1")
        assert claimed is not None and claimed.traceparent == traceparent and claimed.spec == spec
        [delivery_id] = outbox.take_due(limit=10, hold_s=60)
        delivery = outbox.get(delivery_id)
        assert delivery is not None and delivery.job.traceparent == traceparent
        again = store.create(new_spec(), body_hash="h", queue_max_jobs=10, idempotency_key="k", traceparent=None)
        assert again.job_id == spec.id and again.job.traceparent == traceparent
        assert "traceparent" not in spec.to_json()

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

    def test_a_refusal_that_became_a_job_leaves_no_mark(self, store: JobStore) -> None:
        waiting = self.submit(store)
        first, retried = new_spec(), new_spec()
        with pytest.raises(QueueFull):
            store.create(first, body_hash="b", queue_max_jobs=1, retry=0)
        store.cancel(waiting)
        # The reply to the refusal was lost; when the call is made again there is a place.
        assert store.create(first, body_hash="b", queue_max_jobs=1, retry=0).is_new
        assert store.create(retried, body_hash="b", queue_max_jobs=2, retry=1).job_id == first.id

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
        assert second is not None and None not in (first.started_ms, second.started_ms, second.queued_ms)
        assert second.queued_ms >= first.started_ms
        assert second.waited_s == (second.started_ms - second.queued_ms) / 1000

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
