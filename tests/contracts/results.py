"""What becomes of results, and what callers are told before there are any: run on fakeredis and on the real server."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from redis import Redis

from shared.errors import NotFound
from shared.job_store import Created, JobStore
from shared.jobs import Event, Job, JobSpec, Lane, Status, new_id
from shared.outbox import Outbox
from shared.worker_registry import WorkerInfo, WorkerRegistry
from tests.contracts.jobs import MODEL, new_result, new_spec

WEIGHTS = {"sha256": {"base": "ab" * 32}, "lora_strength": 0.7, "scheduler": {}}


class ResultsContract:
    """Subclasses provide `redis`, a client of an empty server."""

    @pytest.fixture
    def store(self, redis: Redis) -> JobStore:
        return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3, row_retention_s=0)

    @pytest.fixture
    def workers(self, redis: Redis) -> WorkerRegistry:
        return WorkerRegistry(redis, prefix="test:", ttl_s=15)

    def submit(self, store: JobStore, **changes: object) -> JobSpec:
        spec = new_spec(**changes)
        store.create(spec, body_hash="h", queue_max_jobs=100)
        return spec

    def finish(self, store: JobStore, spec: JobSpec, *, batch_size: int = 1) -> Job:
        job = store.claim(spec.id, worker="w", delivery_token=spec.id)
        assert job is not None
        store.succeed(job.id, job.fence, replace(new_result(), provenance=WEIGHTS | {"batch_size": batch_size}))
        return store.get(spec.id)

    # -- what to expect

    def test_without_a_worker_the_caller_is_told_so(self, store: JobStore, workers: WorkerRegistry) -> None:
        job_id = self.submit(store).id
        outlook = store.view(job_id)[1]
        assert (outlook.queue_position, outlook.eta_s) == (0, None)
        assert outlook.queue_note == f"no worker serves {MODEL} now; the prediction waits, and is drawn as soon as one is ready"
        workers.beat(WorkerInfo("other", "another/model", "cpu"))
        assert store.view(job_id)[1].queue_note is not None
        workers.beat(WorkerInfo("own", MODEL, "cpu"))
        assert store.view(job_id)[1].queue_note is None

    def test_a_worker_whose_signs_stopped_serves_nobody(self, redis: Redis, store: JobStore) -> None:
        WorkerRegistry(redis, prefix="test:", ttl_s=0.05).beat(WorkerInfo("dead", MODEL, "cpu"))
        time.sleep(0.2)
        assert store.view(self.submit(store).id)[1].queue_note is not None

    def test_the_time_to_the_end_comes_from_what_earlier_jobs_took(
        self, redis: Redis, store: JobStore, workers: WorkerRegistry
    ) -> None:
        workers.beat(WorkerInfo("w", MODEL, "cpu"))
        first = self.submit(store)
        assert store.view(first.id)[1].eta_s is None
        store.claim(first.id, worker="w", delivery_token="1")
        redis.hset(f"test:job:{first.id}", "started_ms", int(time.time() * 1000) - 10_000)
        store.succeed(first.id, 1, new_result())
        waiting = [self.submit(store).id for _ in range(3)]
        assert [store.view(job_id)[1].eta_s for job_id in waiting] == pytest.approx([10, 20, 30], abs=0.2)
        workers.beat(WorkerInfo("w2", MODEL, "cpu"))
        assert [store.view(job_id)[1].eta_s for job_id in waiting] == pytest.approx([10, 10, 20], abs=0.2)
        store.claim(waiting[0], worker="w", delivery_token="2")
        assert store.view(waiting[0])[1].eta_s == pytest.approx(10, abs=0.5)
        store.succeed(waiting[0], 1, new_result())
        assert store.view(waiting[0])[1].eta_s is None

    def test_the_mean_moves_slowly(self, redis: Redis, store: JobStore) -> None:
        for took_s in (10, 20):
            spec = self.submit(store)
            store.claim(spec.id, worker="w", delivery_token="1")
            redis.hset(f"test:job:{spec.id}", "started_ms", int(time.time() * 1000) - 1000 * took_s)
            store.succeed(spec.id, 1, new_result())
        assert float(str(redis.hget("test:durations", MODEL))) == pytest.approx(12_000, abs=200)

    # -- reuse

    @pytest.fixture
    def sharing(self, redis: Redis) -> JobStore:
        return JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3, shares_results=True)

    def test_tenants_share_results_only_where_both_sides_are_told_to(self, store: JobStore, sharing: JobStore) -> None:
        store.announce_weights(MODEL, WEIGHTS)
        kept = self.finish(store, self.submit(store)).spec
        assert self.order_again(sharing, kept, tenant="other").source is None
        shared = self.finish(sharing, self.submit(sharing, tenant="maker"))
        assert self.order_again(store, shared.spec, tenant="other").source is None
        assert self.order_again(sharing, shared.spec, tenant="other").source == shared
        sharing.remove_data(shared)
        assert self.order_again(sharing, shared.spec, tenant="other").source is None

    def order_again(self, store: JobStore, spec: JobSpec, *, reuse: bool = True, **changes: object) -> Created:
        again = replace(spec, id=new_id(), file_token=new_id(), **changes)  # type: ignore[arg-type]
        return store.create(again, body_hash="other", queue_max_jobs=100, reuse=reuse)

    def test_the_same_order_finds_the_stored_result(self, store: JobStore) -> None:
        store.announce_weights(MODEL, WEIGHTS)
        first = self.finish(store, self.submit(store))
        again = self.order_again(store, first.spec)
        assert again.is_new and again.source == first
        assert (again.job.status, again.job.fence, again.job.reused_from) == (Status.RUNNING, 1, first.id)
        assert store.depth(MODEL) == 0

    def test_a_stored_result_is_handed_over_again_when_the_reply_was_lost(self, store: JobStore, redis: Redis) -> None:
        store.announce_weights(MODEL, WEIGHTS)
        first = self.finish(store, self.submit(store))
        again = replace(first.spec, id=new_id(), file_token=new_id())
        for _ in range(2):
            created = store.create(again, body_hash="other", queue_max_jobs=100, reuse=True)
            assert created.is_new and created.source == first and created.job.fence == 1
            assert float(redis.zscore("test:leases", again.id) or 0) > 1
            redis.zadd("test:leases", {again.id: 1})
        assert first.result is not None
        store.succeed(again.id, 1, first.result)
        created = store.create(again, body_hash="other", queue_max_jobs=100, reuse=True)
        assert not created.is_new and created.source is None and created.job.status is Status.SUCCEEDED

    def test_what_differs_is_drawn(self, store: JobStore) -> None:
        store.announce_weights(MODEL, WEIGHTS)
        spec = self.finish(store, self.submit(store)).spec
        differing = [
            self.order_again(store, spec, tenant="other"),
            self.order_again(store, spec, render=replace(spec.render, seed=43)),
            self.order_again(store, spec, render=replace(spec.render, output_format="jpg")),
            self.order_again(store, spec, version="1" * 64),
            self.order_again(store, spec, reuse=False),
        ]
        assert all(created.source is None and created.job.status is Status.QUEUED for created in differing)

    def test_other_weights_draw_another_picture(self, store: JobStore) -> None:
        spec = self.submit(store)
        self.finish(store, spec)
        assert self.order_again(store, spec).source is None  # no worker has said what it draws with
        store.announce_weights(MODEL, WEIGHTS | {"lora_strength": 0.8})
        assert self.order_again(store, spec).source is None
        store.announce_weights(MODEL, WEIGHTS)
        assert self.order_again(store, spec).source is not None

    def test_a_picture_of_a_batch_answers_no_order_and_hides_none_that_does(self, store: JobStore) -> None:
        store.announce_weights(MODEL, WEIGHTS | {"batch_size": 1})
        alone = self.submit(store)
        self.finish(store, alone)
        again = replace(alone, id=new_id(), file_token=new_id())
        store.create(again, body_hash="other", queue_max_jobs=100)
        self.finish(store, again, batch_size=4)
        source = self.order_again(store, alone).source
        assert source is not None and source.id == alone.id

    def test_a_reused_result_that_cannot_be_had_is_drawn(self, store: JobStore) -> None:
        store.announce_weights(MODEL, WEIGHTS)
        spec = self.finish(store, self.submit(store)).spec
        created = self.order_again(store, spec)
        assert store.release(created.job_id, created.job.fence) is Status.QUEUED
        job = store.claim(created.job_id, worker="w", delivery_token="2")
        assert job is not None and (job.fence, job.reused_from) == (2, None)

    def test_a_caller_that_dies_with_a_reused_job_leaves_it_to_the_workers(self, redis: Redis, store: JobStore) -> None:
        store.announce_weights(MODEL, WEIGHTS)
        created = self.order_again(store, self.finish(store, self.submit(store)).spec)
        redis.zadd("test:leases", {created.job_id: 1})
        assert store.expired_leases() == [created.job_id]
        assert store.expire(created.job_id) is Status.QUEUED

    def test_a_reused_job_does_not_count_as_fast_work(self, redis: Redis, store: JobStore) -> None:
        store.announce_weights(MODEL, WEIGHTS)
        first = self.finish(store, self.submit(store))
        redis.hset("test:durations", MODEL, 10_000)
        created = self.order_again(store, first.spec)
        assert first.result is not None
        store.succeed(created.job_id, 1, first.result)
        assert str(redis.hget("test:durations", MODEL)) == "10000"

    def test_a_full_queue_does_not_keep_a_stored_picture_back(self, store: JobStore) -> None:
        store.announce_weights(MODEL, WEIGHTS)
        spec = self.finish(store, self.submit(store)).spec
        self.submit(store)
        again = replace(spec, id=new_id(), file_token=new_id())
        assert store.create(again, body_hash="x", queue_max_jobs=1, reuse=True).source is not None

    def test_removed_data_is_not_reused_and_the_newest_picture_is(self, store: JobStore) -> None:
        store.announce_weights(MODEL, WEIGHTS)
        first = self.finish(store, self.submit(store))
        second = self.order_again(store, first.spec)
        assert first.result is not None
        store.succeed(second.job_id, 1, first.result)
        store.remove_data(first)
        third = self.order_again(store, first.spec)
        assert third.source is not None and third.source.id == second.job_id
        store.remove_data(store.get(second.job_id))
        assert self.order_again(store, first.spec).source is None

    # -- the end of data

    def test_an_ended_job_says_when_its_data_goes(self, store: JobStore) -> None:
        spec = self.submit(store)
        assert store.get(spec.id).expires_ms is None
        job = self.finish(store, spec)
        assert job.expires_ms is not None and job.completed_ms is not None
        assert job.expires_ms - job.completed_ms == 3_600_000
        assert store.expiring() == []
        store.remove_data(job)
        assert store.get(spec.id).expires_ms is None

    def test_a_job_that_nobody_wants_is_due_as_soon_as_it_has_ended(self, store: JobStore) -> None:
        spec = self.submit(store)
        store.claim(spec.id, worker="w", delivery_token="1")
        store.cancel(spec.id, unwanted=True)
        assert store.expiring() == []
        assert not store.remove_data(store.get(spec.id))
        store.succeed(spec.id, 1, new_result())  # the worker did not see the wish in time
        assert store.get(spec.id).status is Status.SUCCEEDED
        assert store.expiring() == [spec.id]

    def test_removed_data_takes_what_its_webhooks_said_along(self, redis: Redis, store: JobStore) -> None:
        outbox = Outbox(redis, prefix="test:")
        spec = self.submit(store, webhook="https://shop.example/hook", webhook_events=[Event.START, Event.COMPLETED])
        job = self.finish(store, spec)
        redis.hset(f"test:delivery:{spec.id}.1", "state", "delivered")
        store.remove_data(job)
        assert [delivery.event for delivery in outbox.of_job(spec.id)] == [Event.COMPLETED]

    def test_removed_data_leaves_no_word_of_the_order(self, redis: Redis, store: JobStore) -> None:
        render = replace(new_spec().render, prompt="61.37% puce", negative_prompt="dull", painted=(("#A0F028", 61.37),))
        order = {"mix": [("puce", 61.37)], "input": {"prompt": "61.37% puce"}, "warnings": ["puce?"], "filename": "puce.png"}
        spec = self.submit(store, render=replace(render, strength=0.5), **order)
        store.remove_data(self.finish(store, spec))
        kept = str(redis.hgetall(f"test:job:{spec.id}"))
        assert [word for word in ("61.37", "puce", "A0F028", "dull") if word in kept] == []
        assert store.get(spec.id).spec.render.steps == spec.render.steps

    def test_a_purged_job_leaves_nothing(self, redis: Redis, store: JobStore) -> None:
        before = set(redis.keys())
        spec = self.submit(store, webhook="https://shop.example/hook", webhook_events=list(Event), cancel_after_s=60.0)
        job = self.finish(store, spec)
        assert not store.purge(spec.id)
        store.remove_data(job)
        assert store.outlived() == [spec.id]
        assert store.purge(spec.id) and not store.purge(spec.id)
        with pytest.raises(NotFound):
            store.get(spec.id)
        with pytest.raises(NotFound):
            store.by_file_token(spec.file_token)
        assert store.list_jobs("shop") == [] and store.outlived() == []
        counters = {"test:seq", "test:runs", "test:ended", "test:durations", f"test:last:{MODEL}", "test:recent:shop:h"}
        assert set(redis.keys()) - before == counters

    def test_a_row_is_kept_for_its_time(self, redis: Redis) -> None:
        store = JobStore(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3, row_retention_s=60)
        store.remove_data(self.finish(store, self.submit(store)))
        assert store.outlived() == []

    def test_a_key_outlives_the_row_it_names(self, store: JobStore) -> None:
        spec = new_spec()
        store.create(spec, body_hash="h", queue_max_jobs=9, idempotency_key="k")
        store.remove_data(self.finish(store, spec))
        store.purge(spec.id)
        assert store.create(new_spec(), body_hash="h", queue_max_jobs=9, idempotency_key="k").is_new

    def test_a_repeat_of_a_deleted_order_is_a_new_one(self, store: JobStore) -> None:
        spec = self.submit(store, lane=Lane.LOW)
        store.remove_data(self.finish(store, spec))
        assert store.create(new_spec(), body_hash="h", queue_max_jobs=9, repeat_window_s=60).is_new
