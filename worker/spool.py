"""The spool: finished pictures on their way out, while the next one is drawn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

POLL_S = 0.5


def _nothing() -> None:
    """What is done while nothing is to be done."""


class Spool:
    """A few places for finished pictures, each picture published by a thread of its own.

    `places` bounds both the memory that pictures take when the storage is away and the leases of one worker; one place holds
    the pictures that are drawn `at_once`. With 0 places pictures are published by the thread that drew them, one after the
    other.
    """

    def __init__(self, places: int, *, at_once: int = 1) -> None:
        self._places = places
        self._room = (max(1, places) - 1) * at_once
        self._taken = 0
        self._changed = threading.Condition()

    def wait_for_place(self, gives_up: Callable[[], bool]) -> bool:
        """Wait until what is drawn next will find a place. False: `gives_up()` came true before."""
        with self._changed:
            while not self._has_place():
                if gives_up():
                    return False
                self._changed.wait(POLL_S)
        return True

    def wait_until_empty(self, while_waiting: Callable[[], None] = _nothing, *, timeout_s: float | None = None) -> bool:
        """Wait until everything is published; `while_waiting()` is called about twice a second.

        False: `timeout_s` passed before.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while self._taken and (deadline_s is None or time.monotonic() < deadline_s):
                while_waiting()
                self._changed.wait(POLL_S)
            return not self._taken

    def put(self, publish: Callable[[], None]) -> None:
        """Have `publish()`, which must not raise, bring a picture out. Call `wait_for_place` before it is drawn."""
        if not self._places:
            return publish()
        with self._changed:
            self._taken += 1
        # Not a daemon: the process ends when what it holds is published, or when its guardian has waited for long enough.
        thread = threading.Thread(target=self._bring_out, args=(publish,), name="publisher")
        try:
            thread.start()
        except RuntimeError:
            # The system gives no more threads: better late than never.
            self._bring_out(publish)

    def _has_place(self) -> bool:
        return self._taken <= self._room

    def _bring_out(self, publish: Callable[[], None]) -> None:
        try:
            publish()
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()
