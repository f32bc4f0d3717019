"""The colours a tile can be ordered in, read from one TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shared.errors import PaletteInvalid

DEFAULT_PALETTE = Path(__file__).resolve().parent.parent / "models" / "palette.toml"


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

    def suggest(self, text: str) -> tuple[Color, ...]:
        """Return the colours that an unknown `text` may have meant, in palette order; none where nothing is near.

        First those whose name contains the text or that list it as near ("green" fits several, and all are offered);
        only if there is none, up to three whose spelling looks alike.
        """
        wanted = fold(text)
        if not wanted:
            return ()
        words = {fold(word) for word in re.split(r"[\s_-]+", text)}
        found = {c for c in self.colors if wanted in map(fold, _forms(*c.near)) or words & set(map(fold, _words(c)))}
        if not found:
            alike = difflib.get_close_matches(wanted, self._by_spelling, n=3, cutoff=0.7)
            found = {self._by_spelling[spelling] for spelling in alike}
        return tuple(color for color in self.colors if color in found)


def fold(text: str) -> str:
    """Reduce a colour name to the form it is compared in: case folded, ё as е, hyphens and runs of space as one space."""
    return " ".join(text.casefold().replace("ё", "е").replace("-", " ").replace("_", " ").split())


def load_palette(path: Path = DEFAULT_PALETTE) -> Palette:
    """Read a palette file (`[[color]]` tables with code, name, name_ru, aliases and srgb as `#RRGGBB`).

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
