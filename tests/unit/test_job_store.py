from __future__ import annotations

import fakeredis
import pytest
from redis import Redis

from tests.contracts.batches import BatchContract
from tests.contracts.job_ends import JobEndsContract
from tests.contracts.jobs import JobStoreContract


class TestOnFakeRedis(JobStoreContract, JobEndsContract, BatchContract):
    @pytest.fixture
    def redis(self) -> Redis:
        return fakeredis.FakeRedis(decode_responses=True)
