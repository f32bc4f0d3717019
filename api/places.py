"""How many requests of a process may wait for the storage at once. Without a bound one that hangs takes every thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from shared.errors import StorageUnavailable

READS_MAX = 4
"""An answer takes some milliseconds, so this many pass hundreds a second on."""

PATIENCE_S = 1.0
"""How long a burst waits for a place."""


class Places:
    """A bounded number of places. Safe to share between threads."""

    def __init__(self, number: int) -> None:
        self._free = BoundedSemaphore(number)
        self._is_stuck = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place. Where somebody waited in vain nobody else waits, until a place has come free.

        Raises:
            StorageUnavailable: all places are taken, and stay so.
        """
        if not self._free.acquire(timeout=0 if self._is_stuck else PATIENCE_S):
            self._is_stuck = True
            raise StorageUnavailable("too many requests wait for the object storage")
        try:
            yield
        finally:
            self._is_stuck = False
            self._free.release()
