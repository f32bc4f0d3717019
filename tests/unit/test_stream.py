from __future__ import annotations

import fakeredis
import pytest
from redis import Redis

from tests.contracts.stream import StreamContract


class TestStreamOnFakeRedis(StreamContract):
    @pytest.fixture
    def redis(self) -> Redis:
        return fakeredis.FakeRedis(decode_responses=True)
