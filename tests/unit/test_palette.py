from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import PaletteInvalid
from shared.palette import Palette, load_palette, parse_hex


@pytest.fixture(scope="module")
def palette() -> Palette:
    return load_palette()


def names(palette: Palette, text: str) -> list[str]:
    return [color.name for color in palette.suggest(text)]


def test_holds_29_colours_each_with_its_own_code_name_and_swatch(palette: Palette) -> None:
    assert len(palette.colors) == 29
    for field in ("code", "name", "name_ru", "srgb"):
        assert len({getattr(color, field) for color in palette.colors}) == 29
    assert {"BLACK", "PEARL", "RED", "TERCOT", "WHTGRN"} <= {color.code for color in palette.colors}


def test_every_spelling_finds_its_own_colour(palette: Palette) -> None:
    for color in palette.colors:
        for spelling in color.spellings:
            assert palette.find(spelling) is color, spelling


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("RED", "RED"),
        ("  Dark   GREEN ", "DKGREEN"),
        ("dark-green", "DKGREEN"),
        ("darkgreen", "DKGREEN"),
        ("white green", "WHTGRN"),
        ("dark grey", "DKGRAY"),
        ("чёрный", "BLACK"),
        ("Черный", "BLACK"),
        ("красного", "RED"),
        ("тёмно-синяя", "DKBLUE"),
        ("голубого", "SKYBLUE"),
        ("лососевая", "SALMON"),
        ("зелёного яблока", "GRNAPL"),
        ("хаки", "KHAKI"),
    ],
)
def test_finds_a_colour_however_it_is_spelled(palette: Palette, text: str, code: str) -> None:
    found = palette.find(text)
    assert found is not None and found.code == code


@pytest.mark.parametrize("text", ["green", "", " ", "navy", "зелёный", "redd", "50% red", "красн"])
def test_what_is_not_a_colour_is_not_guessed(palette: Palette, text: str) -> None:
    assert palette.find(text) is None


def test_suggests_every_reading_of_green(palette: Palette) -> None:
    greens = ["dark green", "emerald", "green apple", "grass green", "lime green", "light green", "white-green"]
    assert names(palette, "green") == names(palette, "Green tile") == names(palette, "зелёного") == greens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("navy", ["blue", "dark blue"]),
        ("purple", ["lilac", "violet"]),
        ("gold", ["sand", "yellow"]),
        ("pastel pink", ["pink"]),
        ("dark red", ["red"]),
        ("redish", ["red"]),
        ("limgrn", ["lime green"]),
        ("yelow", ["yellow"]),
        ("бордовая", ["red", "terracotta"]),
        ("kitchen", []),
        ("", []),
    ],
)
def test_suggests_what_lies_near(palette: Palette, text: str, expected: list[str]) -> None:
    assert names(palette, text) == expected


def test_near_words_are_never_spellings(palette: Palette) -> None:
    for color in palette.colors:
        assert [word for word in color.near if palette.find(word)] == []


@pytest.mark.parametrize("text", ["FFFFFF", "#FFF", "#GGGGGG", "#FFFFFFFF", "", "# 12345"])
def test_a_swatch_is_six_hex_digits(text: str) -> None:
    with pytest.raises(ValueError):
        parse_hex(text)


RED = '[[color]]\ncode = "RED"\nname = "red"\nname_ru = "Красный"\naliases = []\nsrgb = "#C9493C"\n'


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[[color]", "TOMLDecodeError"),
        ("", "color"),
        (RED.replace("name_ru", "russian"), "name_ru"),
        (RED.replace("#C9493C", "red"), "#RRGGBB"),
        (RED + RED.replace("RED", "ROT").replace("Красный", "Рот"), "'red' means both"),
    ],
)
def test_a_bad_palette_file_is_refused_with_its_name(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "palette.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PaletteInvalid, match=part):
        load_palette(path)


def test_a_missing_palette_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PaletteInvalid, match="none.toml"):
        load_palette(tmp_path / "none.toml")
