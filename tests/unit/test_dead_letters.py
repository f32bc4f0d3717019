from __future__ import annotations

import fakeredis
import pytest
from redis import Redis

from tests.contracts.dead_letters import DeadLettersContract


class TestOnFakeRedis(DeadLettersContract):
    @pytest.fixture
    def redis(self) -> Redis:
        return fakeredis.FakeRedis(decode_responses=True)
