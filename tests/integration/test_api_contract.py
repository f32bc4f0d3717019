from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from shared.redis_client import connect
from tests.contracts.api import HoldContract, PredictionsContract, SafeCreatesContract


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url, timeout_s=5) as client:
        yield client


class TestPredictionsOnRealRedis(PredictionsContract):
    pass


class TestSafeCreatesOnRealRedis(SafeCreatesContract):
    pass


class TestHoldOnRealRedis(HoldContract):
    pass
