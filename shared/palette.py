"""The colours a tile can be ordered in, read from one TOML file."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shared.errors import PaletteInvalid

DEFAULT_PALETTE = Path(__file__).resolve().parent.parent / "models" / "palette.toml"

ADJECTIVE_ENDINGS = {
    "ый": ("ая", "ое", "ого", "ой", "ые", "ых"),
    "ой": ("ая", "ое", "ого", "ые", "ых"),
    "ий": ("яя", "ее", "его", "ей", "ие", "их"),
}
SHADES = ("dark", "light", "темно", "светло")
"""Words of a name that say nothing about the hue."""


@dataclass(frozen=True, slots=True)
class Color:
    """One granule colour.

    `name` is the caption the LoRA was trained on; `srgb` is the median colour of its granules on a photo, 0 to 255 each.
    `aliases` mean this colour; `near` are words for something else that this colour may be offered for.
    """

    code: str
    name: str
    name_ru: str
    aliases: tuple[str, ...]
    srgb: tuple[int, int, int]
    near: tuple[str, ...] = ()

    @property
    def hex(self) -> str:
        """The swatch as `#RRGGBB`."""
        return "#{:02X}{:02X}{:02X}".format(*self.srgb)

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every text that means this colour: caption, code, Russian name, aliases, and the Russian ones declined."""
        return tuple(form for text in (self.name, self.code, self.name_ru, *self.aliases) for form in (text, *_declined(text)))


@dataclass(frozen=True)
class Palette:
    """An ordered set of colours in which no spelling means two of them."""

    colors: tuple[Color, ...]

    @cached_property
    def _by_spelling(self) -> dict[str, Color]:
        table: dict[str, Color] = {}
        for color in self.colors:
            for spelling in color.spellings:
                if table.setdefault(fold(spelling), color) is not color:
                    raise PaletteInvalid(f"{spelling!r} means both {table[fold(spelling)].name} and {color.name}")
        return table

    def find(self, text: str) -> Color | None:
        """Return the colour that `text` spells (caption, code, Russian name or alias; case and spacing ignored), or None."""
        return self._by_spelling.get(fold(text))

    @cached_property
    def _by_hint(self) -> dict[str, set[Color]]:
        table: dict[str, set[Color]] = {}
        for color in self.colors:
            for hint in (*color.near, *_words(color.name), *_words(color.name_ru)):
                for form in (hint, *_declined(hint)):
                    table.setdefault(fold(form), set()).add(color)
        for shade in SHADES:
            table.pop(shade, None)
        return table

    def suggest(self, text: str) -> tuple[Color, ...]:
        """Return the colours that an unknown `text` may have meant, in palette order; none where nothing is near.

        "green" fits several and all are offered. Tried in turn: the whole text as a hint, its single words ("pale green"),
        and up to three spellings that look alike ("redish").
        """
        found = set(self._by_hint.get(fold(text), ()))
        if not found:
            found = {color for word in _words(text) for color in self._by_hint.get(fold(word), ())}
        if not found:
            alike = difflib.get_close_matches(fold(text), self._by_spelling, n=3, cutoff=0.7)
            found = {self._by_spelling[spelling] for spelling in alike}
        return tuple(color for color in self.colors if color in found)

    def spellings(self) -> tuple[str, ...]:
        """Every known spelling, folded, in palette order."""
        return tuple(self._by_spelling)


def fold(text: str) -> str:
    """Reduce a colour name to the form it is compared in: case folded, ё as е, without spaces, hyphens and underscores."""
    return "".join(_words(text.casefold().replace("ё", "е")))


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s_-]+", text) if word]


def _declined(name: str) -> tuple[str, ...]:
    """Return the other forms a Russian adjective takes in an order ("красная плитка", "50% красного"); none for other words."""
    return tuple(name[:-2] + ending for ending in ADJECTIVE_ENDINGS.get(name[-2:].casefold(), ()))


def load_palette(path: Path = DEFAULT_PALETTE) -> Palette:
    """Read a palette file (`[[color]]` tables with code, name, name_ru, aliases, srgb as `#RRGGBB`, and near).

    Raises:
        PaletteInvalid: the file is missing, is not TOML, lacks a field, or one spelling means two colours.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["color"]
        colors = tuple(
            Color(
                code=table["code"],
                name=table["name"],
                name_ru=table["name_ru"],
                aliases=tuple(table["aliases"]),
                srgb=parse_hex(table["srgb"]),
                near=tuple(table.get("near", ())),
            )
            for table in tables
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise PaletteInvalid(f"{path}: {error!r}") from error
    palette = Palette(colors)
    palette.spellings()
    return palette


def parse_hex(text: str) -> tuple[int, int, int]:
    """Turn `#RRGGBB` into three integers of 0 to 255. Raises ValueError for any other form."""
    if len(text) != 7 or text[0] != "#":
        raise ValueError(f"expected #RRGGBB, got {text!r}")
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue
