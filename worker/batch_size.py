"""How many jobs a worker may draw together now."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

ALONE_S = 600.0
"""How long no batch is tried after one did not fit. Whoever shares the device may have left by then, and a try that fails again
costs no more than a few of the many pictures that were drawn one by one."""


class BatchSize:
    """`most`, or 1 for a while after so many at once were too much for the device. `clock` is monotonic seconds."""

    def __init__(self, most: int = 1, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._alone_until_s = float("-inf")

    def now(self) -> int:
        """Return how many jobs the next claim may take."""
        return 1 if self._clock() < self._alone_until_s else self._most

    def rest(self) -> None:
        """Draw jobs one by one for a while."""
        log.warning("batches of %d do not fit; jobs are drawn one by one for %.0f minutes", self._most, ALONE_S / 60)
        self._alone_until_s = self._clock() + ALONE_S
