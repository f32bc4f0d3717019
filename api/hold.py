"""How long a create is held open: `Prefer: wait`, and the limits that callers have without saying so."""

from __future__ import annotations

import math

from werkzeug.datastructures import Headers

HOLD_DEFAULT_S = 60.0
HOLD_MIN_S = 1.0

EARLY_S = 0.25
"""Answer this much before the time asked for: the official Python client waits half a second longer than that, no more."""

READ_TIMEOUT_MARGIN_S = 1.0
"""And this much before the read time-out that a client announces: past it, it would send the request again."""


def hold_s(headers: Headers, *, hold_max_s: float) -> float | None:
    """Return how long to wait for the job, in seconds, or None to answer at once.

    `Prefer` is read leniently (RFC 7240): `wait`, `wait=5`, `wait="7.5"`, among other preferences, in any case. A number
    outside 1 to 60 is moved inside; what is no number is passed over.
    """
    wanted = [_wait_of(preference) for preference in ",".join(headers.getlist("Prefer")).split(",")]
    waits = [wait for wait in wanted if wait is not None]
    if not waits:
        return None
    hold = min(max(waits[0], HOLD_MIN_S), HOLD_DEFAULT_S) - EARLY_S
    announced = _number(headers.get("x-stainless-read-timeout", ""))
    if announced is not None:
        hold = min(hold, announced - READ_TIMEOUT_MARGIN_S)
    return max(0.0, min(hold, hold_max_s))


def _wait_of(preference: str) -> float | None:
    name, has_value, value = preference.partition(";")[0].partition("=")
    if name.strip().lower() != "wait":
        return None
    return _number(value.strip().strip('"')) if has_value else HOLD_DEFAULT_S


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number
