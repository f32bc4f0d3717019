from __future__ import annotations

import pytest
from werkzeug.datastructures import Headers

from api.hold import EARLY_S, READ_TIMEOUT_MARGIN_S, hold_s


@pytest.mark.parametrize(
    ("prefer", "expected_s"),
    [
        ("wait", 55.0),
        ("wait=5", 5 - EARLY_S),
        ("Wait = 7.5", 7.5 - EARLY_S),
        ('wait="5"', 5 - EARLY_S),
        ("respond-async, wait=5", 5 - EARLY_S),
        ("wait=5; foo=bar, wait=9", 5 - EARLY_S),
        ("wait=0", 1 - EARLY_S),
        ("wait=-3", 1 - EARLY_S),
        ("wait=600", 55.0),
        ("wait=inf", 55.0),
        ("wait=nan", None),
        ("wait=soon", None),
        ("wait=", None),
        ("waiting", None),
        ("respond-async", None),
        ("", None),
    ],
)
def test_prefer_is_read_leniently(prefer: str, expected_s: float | None) -> None:
    assert hold_s(Headers({"Prefer": prefer}), hold_max_s=55) == expected_s


def test_without_the_header_the_answer_is_immediate() -> None:
    assert hold_s(Headers(), hold_max_s=55) is None


def test_the_smallest_limit_counts() -> None:
    announced = Headers({"Prefer": "wait", "x-stainless-read-timeout": "20"})
    assert hold_s(announced, hold_max_s=55) == 20 - READ_TIMEOUT_MARGIN_S
    assert hold_s(announced, hold_max_s=3) == 3
    assert hold_s(Headers({"Prefer": "wait", "x-stainless-read-timeout": "0.5"}), hold_max_s=55) == 0
    assert hold_s(Headers({"Prefer": "wait", "x-stainless-read-timeout": "None"}), hold_max_s=55) == 55
