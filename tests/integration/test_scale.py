"""Long lines cost what short ones do; `python -m bench.scale` measures it at 100,000."""

from __future__ import annotations

from statistics import median

from bench.line import Line, measure
from shared.redis_client import connect
from shared.settings import Settings

NOISE = 4.0
"""Medians on a busy machine differ by less; whatever walks through the line would be some thirty times slower."""


def test_no_call_is_slower_when_thirty_times_as_many_wait(redis_url: str) -> None:
    with connect(redis_url, timeout_s=10) as redis:
        line = Line(Settings(redis_url=redis_url), redis)
        short, long = measure(line, 100, 25), measure(line, 3_000, 25)
    slower = {name: median(long[name]) / median(times) for name, times in short.items()}
    assert all(ratio < NOISE for ratio in slower.values()), slower
