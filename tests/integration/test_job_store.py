from __future__ import annotations

import subprocess
import sys

import pytest
from redis import Redis

from shared.errors import StoreUnavailable
from shared.job_store import JobStore
from shared.redis_client import connect
from tests.contracts.batches import BatchContract
from tests.contracts.job_ends import JobEndsContract
from tests.contracts.jobs import JobStoreContract, new_spec


class TestOnTheRealServer(JobStoreContract, JobEndsContract, BatchContract):
    @pytest.fixture
    def redis(self, redis_url: str) -> Redis:
        return connect(redis_url, timeout_s=5)


def test_a_server_that_is_away_is_reported_in_time() -> None:
    store = JobStore(connect("redis://127.0.0.1:1", timeout_s=0.5), retention_s=60, lease_s=1, max_attempts=1)
    with pytest.raises(StoreUnavailable):
        store.get("any")
    with pytest.raises(StoreUnavailable):
        store.create(new_spec(), body_hash="h", queue_max_jobs=1)


def test_a_claim_outlives_its_process(redis_url: str) -> None:
    store = JobStore(connect(redis_url, timeout_s=5), retention_s=60, lease_s=0.2, max_attempts=3)
    job_id = store.create(new_spec(), body_hash="h", queue_max_jobs=1).job_id
    program = (
        "import os, signal\n"
        "from shared.job_store import JobStore\n"
        "from shared.redis_client import connect\n"
        f"store = JobStore(connect({redis_url!r}, timeout_s=5), retention_s=60, lease_s=0.2, max_attempts=3)\n"
        f"store.claim({job_id!r}, worker='doomed', delivery_token='1')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    job = store.get(job_id)
    assert job.status == "running" and job.worker == "doomed"
    while store.expire(job_id) is None:
        pass
    assert store.get(job_id).crashes == 0  # it died before a sign of life, and so before it drew
