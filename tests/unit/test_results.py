from __future__ import annotations

import fakeredis
import pytest
from redis import Redis

from tests.contracts.results import ResultsContract


class TestResultsOnFakeRedis(ResultsContract):
    @pytest.fixture
    def redis(self) -> Redis:
        return fakeredis.FakeRedis(decode_responses=True)
