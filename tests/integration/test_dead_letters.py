from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from shared.redis_client import connect
from tests.contracts.dead_letters import DeadLettersContract


class TestOnTheRealServer(DeadLettersContract):
    @pytest.fixture
    def redis(self, redis_url: str) -> Iterator[Redis]:
        with connect(redis_url, timeout_s=5) as client:
            yield client
