"""How many orders a token may place in a minute, counted in Redis for all API processes together.

Counted is what makes a job. A request that is refused costs nothing: JavaScript's official client sends one that got 429
five more times within 12 ms. Nor does a repeat, which finds the job of the request before it, and is answered even when the
minute is used up. Reading is never counted: a client that polls is not one that floods.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import RateLimiter, SlidingWindowCounterRateLimiter
from redis import Redis

from api.tokens import Token
from shared.errors import IdempotencyConflict, QueueFull, RateLimited
from shared.job_store import Created
from shared.redis_client import answering
from shared.settings import Settings

LOOK_AGAIN_S = 0.1
"""Repeats of one request that come at once take places of the minute, until the first of them is on record: so one that bears
a key is looked at again after this time before it is refused."""


class OrderLimits:
    """The orders of all tokens in the last minute. Safe to share between threads."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter

    def admit(self, token: Token, create: Callable[[bool], Created], *, has_key: bool = False) -> Created:
        """Call `create(True)` within the token's minute, or `create(False)` when it is used up, and count what became of it.

        `create(False)` must record nothing: it may find the job of an earlier request, or raise QueueFull. With `has_key` the
        request may be one of several at once of which one makes the job.

        Raises:
            RateLimited: the token has placed as many orders as it may, and this is a new one.
            StoreUnavailable: Redis does not answer.
        """
        if token.creates_per_minute is None:
            return create(True)
        limit = RateLimitItemPerMinute(token.creates_per_minute)
        created = self._admit_once(token.name, limit, create)
        if created is None and has_key:
            time.sleep(LOOK_AGAIN_S)
            created = self._admit_once(token.name, limit, create)
        if created is None:
            raise self._refusal(token.name, limit)
        return created

    def remaining(self, token: Token) -> int | None:
        """Return how many orders the token may place right now; None: as many as it likes. Raises StoreUnavailable."""
        if token.creates_per_minute is None:
            return None
        with answering():
            return self._limiter.get_window_stats(RateLimitItemPerMinute(token.creates_per_minute), token.name).remaining

    def _admit_once(self, name: str, limit: RateLimitItem, create: Callable[[bool], Created]) -> Created | None:
        """Return None when the minute is used up and there is no earlier job."""
        with answering():
            admitted = self._limiter.hit(limit, name)
        try:
            created = create(admitted)
        except (QueueFull, IdempotencyConflict) as error:
            if admitted:
                self._give_back(name, limit)
            elif isinstance(error, QueueFull):
                return None
            raise
        if admitted and not created.is_new:
            self._give_back(name, limit)
        return created

    def _give_back(self, name: str, limit: RateLimitItem) -> None:
        with answering():
            self._limiter.hit(limit, name, cost=-1)

    def _refusal(self, name: str, limit: RateLimitItem) -> RateLimited:
        with answering():
            reset_s = self._limiter.get_window_stats(limit, name).reset_time - time.time()
        return RateLimited(
            f"{name!r} may place {limit.amount} orders in a minute; try again later",
            limit=limit.amount,
            retry_after_s=max(1, math.ceil(reset_s)),
        )


def connect_limits(settings: Settings, redis: Redis) -> OrderLimits:
    """Build the limits on a Redis connection. Nothing is sent yet."""
    storage = RedisStorage(
        settings.redis_url, connection_pool=redis.connection_pool, key_prefix=f"{settings.redis_prefix}limits"
    )
    return OrderLimits(SlidingWindowCounterRateLimiter(storage))
