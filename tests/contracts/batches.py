"""Which waiting jobs are taken together: run on fakeredis and on the real server."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis import Redis

from shared.job_store import JobStore
from shared.jobs import Lane, Status
from shared.worker_registry import WorkerInfo, WorkerRegistry
from tests.contracts.jobs import MODEL, JobStoreFixtures, new_spec


class BatchContract(JobStoreFixtures):
    """Claims of several jobs at once."""

    def batch(self, store: JobStore, token: str = "1", size: int = 3) -> list[str]:
        return [job.id for job in store.claim_batch(MODEL, worker="a", token=token, size=size)]

    def drawn(self, store: JobStore, lane: Lane = Lane.NORMAL, **changes: object) -> str:
        return self.submit(store, lane=lane, render=replace(new_spec().render, **changes))  # type: ignore[arg-type]

    def test_a_batch_is_the_first_in_line_and_those_directly_behind_it(self, store: JobStore) -> None:
        waiting = [self.drawn(store, seed=n, prompt=str(n), output_format="jpg", angles=(0,)) for n in range(4)]
        taken = store.claim_batch(MODEL, worker="a", token="1", size=3)
        assert [job.id for job in taken] == waiting[:3]
        assert {(job.status, job.fence, job.worker) for job in taken} == {(Status.RUNNING, 1, "a")}
        assert self.batch(store, "2") == waiting[3:] and store.depth(MODEL) == 0

    @pytest.mark.parametrize(
        "other",
        [
            {"num_inference_steps": 21},
            {"guidance_scale": 7.5},
            {"width_px": 512},
            {"strength": 0.5, "painted": (("#FF0000", 100.0),)},
            {"seamless": True},
            {"guidance_end": 0.5},
            {"num_candidates": 2},
        ],
    )
    def test_nobody_is_overtaken_by_one_that_would_fit_better(self, store: JobStore, other: dict[str, object]) -> None:
        first, misfit, *rest = (self.drawn(store, **change) for change in ({}, other, {}, {}, {}))
        assert self.batch(store, "1") == [first]
        assert self.batch(store, "2") == [misfit]
        assert self.batch(store, "3") == rest

    def test_several_candidates_are_never_drawn_together(self, store: JobStore) -> None:
        waiting = [self.drawn(store, num_candidates=2) for _ in range(3)]
        assert self.batch(store) == waiting[:1]

    def test_guided_pictures_share_a_batch_whatever_their_colours(self, store: JobStore) -> None:
        colors = ("#FF0000", "#000000", "#00FF00")
        waiting = [self.drawn(store, strength=0.5, painted=((color, 100.0),)) for color in colors]
        assert self.batch(store) == waiting

    def test_a_batch_keeps_to_one_lane(self, store: JobStore) -> None:
        low, *_ = (self.drawn(store, Lane.LOW) for _ in range(3))
        high = self.drawn(store, Lane.HIGH)
        assert self.batch(store, "1") == [high]
        assert self.batch(store, "2")[0] == low

    def test_what_was_given_back_is_drawn_alone(self, store: JobStore) -> None:
        waiting = [self.drawn(store) for _ in range(3)]
        assert self.batch(store) == waiting
        for job_id in waiting:
            store.release(job_id, 1)
        assert [self.batch(store, str(n)) for n in range(2, 5)] == [[job_id] for job_id in waiting]

    def test_a_line_too_short_for_all_workers_is_shared_out_one_by_one(self, store: JobStore, redis: Redis) -> None:
        workers = WorkerRegistry(redis, prefix="test:", ttl_s=15)
        for name in ("a", "b"):
            workers.beat(WorkerInfo(name, MODEL, "cpu"))
        waiting = [self.drawn(store) for _ in range(6)]
        assert self.batch(store, "1") == waiting[:3]
        assert self.batch(store, "2") == waiting[3:4]

    def test_a_batch_whose_reply_was_lost_is_the_same_batch_but_for_what_it_lost(self, store: JobStore) -> None:
        waiting = [self.drawn(store) for _ in range(4)]
        assert self.batch(store) == self.batch(store) == waiting[:3]
        store.release(waiting[1], 1)
        assert self.batch(store) == [waiting[0], waiting[2]]
        assert {store.get(job_id).fence for job_id in waiting[:3]} == {1}

    @pytest.mark.parametrize("damaged", ["{", "7", '{"render": 7}'])
    def test_a_record_that_cannot_be_read_joins_no_batch(self, store: JobStore, redis: Redis, damaged: str) -> None:
        waiting = [self.drawn(store) for _ in range(4)]
        redis.hset(f"test:job:{waiting[1]}", "spec", damaged)
        assert self.batch(store) == waiting[:1]
