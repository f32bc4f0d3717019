"""What a client notes about one order. Standard library alone, for clients run in the environments of other systems."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Order:
    """Moments of one order, in nanoseconds of the monotonic clock.

    `accepted_ns` is when the system had answered that it would do it, `known_ns` when the client knew that it was done,
    `fetched_ns` when it held the picture's bytes. A moment that a system does not have is None.
    """

    seed: int
    sent_ns: int
    accepted_ns: int | None
    known_ns: int
    fetched_ns: int


class Busy(Exception):
    """The system takes no order now."""
