from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, cast

import fakeredis
import pytest
from redis import Redis

from shared.errors import StoreUnavailable
from shared.job_store import Beat, JobStore
from shared.queue import make_celery
from shared.settings import Settings
from shared.worker_registry import connect_workers
from worker.guardian import Child, Guardian
from worker.pulse import Holding, Ready
from worker.watched import Watched

SETTINGS = Settings(lease_s=15, heartbeat_s=5, freeze_limit_s=60)

LEAVES_A_CHILD = """
import os, subprocess, sys
subprocess.Popen(["sleep", "15"], close_fds=False)
os._exit(os.EX_CONFIG)
"""


class Renewals(JobStore):
    """Notes which jobs are renewed; the first `failures` renewals do not get through."""

    def __init__(self, redis: Redis, failures: int = 0) -> None:
        super().__init__(redis, prefix="test:", retention_s=3600, lease_s=15, max_attempts=3)
        self.failures = failures
        self.renewed: list[str] = []

    def renew(self, job_id: str, fence: int, **_: Any) -> Beat:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        self.renewed.append(job_id)
        return Beat.HELD


@pytest.fixture
def redis() -> Redis:
    return fakeredis.FakeRedis(decode_responses=True)


def guard(redis: Redis, store: JobStore, *command: str, clock: Any = time.monotonic) -> Guardian:
    workers = connect_workers(SETTINGS, redis)
    return Guardian(command, settings=SETTINGS, store=store, workers=workers, celery=make_celery(SETTINGS), clock=clock)


def test_a_worker_is_dead_when_its_process_is_though_a_child_of_it_keeps_the_pipe_open(redis: Redis) -> None:
    began_s = time.monotonic()
    assert guard(redis, Renewals(redis), sys.executable, "-c", LEAVES_A_CHILD).run() == os.EX_CONFIG
    assert time.monotonic() - began_s < 10


def test_a_renewal_that_failed_is_not_left_to_the_next_heartbeat(redis: Redis) -> None:
    now_s, store = 0.0, Renewals(redis, failures=1)
    guardian = guard(redis, store, clock=lambda: now_s)
    watched = Watched("w", started_s=0.0, pinged_s=0.0)
    watched.note(Holding("a", 1), 0.0)
    renewals = []
    for at_s in (0.0, 0.5, 1.0, 5.4, 5.5, 10.4, 10.5):
        now_s = at_s
        guardian._renew(watched)
        renewals.append(len(store.renewed))
    # The first one is due at once: it tells the record that somebody came to hold the job.
    assert renewals == [0, 1, 1, 1, 2, 2, 3]


def test_the_leases_of_a_worker_that_was_killed_and_does_not_die_run_out(redis: Redis) -> None:
    read_fd, write_fd = os.pipe()

    class Unkillable:
        """Stuck in its driver, as after a GPU fell off its bus: a second passes until it is gone."""

        def kill(self) -> None:
            threading.Timer(1.2, os.close, [write_fd]).start()

        def poll(self) -> None:
            return None

    store, now_s = Renewals(redis), 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 40.0
        return now_s

    watched = Watched("w", started_s=0.0, pinged_s=0.0)
    watched.note(Ready("cpu"), 0.0)
    watched.note(Holding("a", 1), 0.0)
    child = Child(cast("Any", Unkillable()), read_fd, watched)
    guard(redis, store, clock=clock)._watch(child)
    os.close(read_fd)
    assert child.verdict is not None
    assert len(store.renewed) <= 1
