from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from shared.redis_client import connect
from tests.contracts.api import HoldContract, PredictionsContract, SafeCreatesContract
from tests.contracts.results import ResultsContract
from tests.contracts.stream import StreamContract


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url, timeout_s=5) as client:
        yield client
        client.connection_pool.disconnect()


class TestPredictionsOnRealRedis(PredictionsContract):
    pass


class TestSafeCreatesOnRealRedis(SafeCreatesContract):
    pass


class TestHoldOnRealRedis(HoldContract):
    pass


class TestStreamOnRealRedis(StreamContract):
    pass


class TestResultsOnRealRedis(ResultsContract):
    pass
