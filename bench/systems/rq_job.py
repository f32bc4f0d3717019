"""The stand-in model as an rq job that returns the bytes, and a client of it."""

from __future__ import annotations

import time

from redis import Redis
from rq import Queue

from bench.systems.model import draw_png
from bench.systems.timing import Order

TIMEOUT_S = 60


def draw(prompt: str, seed: int) -> bytes:
    """Return the picture as a PNG file."""
    return draw_png(seed)


class Client:
    """Enqueues the job and waits for its result, which Redis pushes."""

    def __init__(self, address: str) -> None:
        self._queue = Queue(connection=Redis.from_url(address))

    def order(self, seed: int) -> Order:
        """Order a picture and wait for its bytes."""
        sent_ns = time.monotonic_ns()
        job = self._queue.enqueue(draw, "50% red, 50% black", seed)
        accepted_ns = time.monotonic_ns()
        result = job.latest_result(timeout=TIMEOUT_S)
        known_ns = time.monotonic_ns()
        if result is None or not isinstance(result.return_value, bytes):
            raise RuntimeError(f"job {job.id} left no picture")
        return Order(seed, sent_ns, accepted_ns, known_ns, known_ns)
