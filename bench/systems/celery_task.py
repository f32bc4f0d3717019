"""The stand-in model as a plain Celery task that returns the bytes, and a client of it."""

from __future__ import annotations

import os
import time

from celery import Celery

from bench.systems.model import draw_png
from bench.systems.timing import Order

TIMEOUT_S = 60

app = Celery("plain", broker=os.environ.get("BENCH_REDIS_URL"), backend=os.environ.get("BENCH_REDIS_URL"))
app.conf.update(
    task_serializer="pickle",
    result_serializer="pickle",
    accept_content=["pickle"],
    task_acks_late=True,
    worker_prefetch_multiplier=1,
)


@app.task(name="draw")
def draw(prompt: str, seed: int) -> bytes:
    """Return the picture as a PNG file."""
    return draw_png(seed)


class Client:
    """Sends the task and waits for its result, which the backend pushes."""

    def __init__(self, address: str) -> None:
        """`address` is taken from the environment, where the worker finds it too."""

    def order(self, seed: int) -> Order:
        """Order a picture and wait for its bytes."""
        sent_ns = time.monotonic_ns()
        result = draw.apply_async(("50% red, 50% black", seed))
        accepted_ns = time.monotonic_ns()
        result.get(timeout=TIMEOUT_S)
        known_ns = time.monotonic_ns()
        return Order(seed, sent_ns, accepted_ns, known_ns, known_ns)
