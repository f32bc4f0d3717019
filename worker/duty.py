"""How much of the time in which there was something to draw a worker spent drawing."""

from __future__ import annotations

import time
from collections.abc import Callable


class DutyMeter:
    """Adds up `busy_s`, the time spent drawing, and `starved_s`, the time not drawn although the next job waited already.

    Time in which no job waits counts for neither. Use it from the thread that draws; `clock` is monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since_s = clock()
        self.busy_s = 0.0
        self.starved_s = 0.0

    def start(self, waited_s: float) -> None:
        """Drawing begins, of a job that has waited for a worker for `waited_s` seconds."""
        now_s = self._clock()
        self.starved_s += max(0.0, min(now_s - self._since_s, waited_s))
        self._since_s = now_s

    def stop(self) -> None:
        """Drawing ends, however it does."""
        now_s = self._clock()
        self.busy_s += now_s - self._since_s
        self._since_s = now_s
