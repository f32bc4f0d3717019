from __future__ import annotations

import fakeredis
import pytest
from redis import Redis

from tests.contracts.api import HoldContract, PredictionsContract, SafeCreatesContract


@pytest.fixture
def redis() -> Redis:
    return fakeredis.FakeRedis(decode_responses=True)


class TestPredictionsOnFakeRedis(PredictionsContract):
    pass


class TestSafeCreatesOnFakeRedis(SafeCreatesContract):
    pass


class TestHoldOnFakeRedis(HoldContract):
    pass
