from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.filenames import file_name, slug

DAY = date(2026, 11, 22)


def test_names_a_picture_by_day_mix_and_seed() -> None:
    name = file_name(DAY, "50% red, 30% black, 20% pearl", 42, "png")
    assert name == "2026-11-22_50red-30black-20pearl_seed42.png"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.5% dark green, 87.5% white-green", "12.5dark_green-87.5white-green"),
        ("Top view of a tile", "top_view_of_a_tile"),
        ("50% тёмно-синий", "50temno-siniy"),
        ("../../etc/passwd", "etcpasswd"),
        ("..\\..\\x", "x"),
        ("a\x00b\r\nc", "ab_c"),
        ("CON.", "con"),
        ("...", "tile"),
        ("漢字", "tile"),
        ("", "tile"),
        ("ohwx_rubber_tile <s0><s1>, red", "ohwx_rubber_tile_s0s1-red"),
    ],
)
def test_a_slug_is_plain(text: str, expected: str) -> None:
    assert slug(text) == expected


@given(text=st.text(max_size=200), seed=st.integers(0, 2**32 - 1))
def test_no_text_makes_a_name_unsafe(text: str, seed: int) -> None:
    name = file_name(DAY, text, seed, "webp")
    assert re.fullmatch(r"2026-11-22_[a-z0-9]([a-z0-9._-]*[a-z0-9])?_seed[0-9]+\.webp", name)
    assert ".." not in name
    assert len(name) < 120
