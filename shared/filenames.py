"""Names that a person can read for finished pictures: `2026-11-22_50red-30black-20pearl_seed42.png`.

The name says what was ordered; it is no key. Uniqueness and secrecy come from the path before it.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date

PROMPT_MAX_CHARACTERS = 80
"""Longest middle part; with date, seed and extension a name stays below 120 characters."""

CYRILLIC = str.maketrans(
    dict(zip("абвгдезийклмнопрстуфхцъыьэ", "abvgdeziyklmnoprstufhc'y'e", strict=True))
    | {"ё": "e", "ж": "zh", "ч": "ch", "ш": "sh", "щ": "sch", "ю": "yu", "я": "ya"}
)


def file_name(day: date, prompt: str, seed: int, extension: str) -> str:
    """Name a picture by its day, its mix or prompt text, its seed and its format (`png`, `jpg` or `webp`).

    The result has ASCII letters, digits, `.`, `_` and `-` only, begins with the date, and never holds `..` or a path.
    """
    return f"{day.isoformat()}_{slug(prompt)}_seed{seed}.{extension}"


def variant_name(filename: str, variant: str) -> str:
    """Name another picture of the same order: `tile.png` and `30deg` become `tile_30deg.png`. No variant: the name itself."""
    stem, dot, extension = filename.rpartition(".")
    return f"{stem}_{variant}{dot}{extension}" if variant else filename


def thumbnail_name(filename: str) -> str:
    """Name the small version of a picture: `tile_30deg.png` becomes `tile_30deg_thumb.webp`."""
    return f"{filename.rpartition('.')[0]}_thumb.webp"


def slug(text: str) -> str:
    """Reduce any text to a part of a file name of 1 to `PROMPT_MAX_CHARACTERS` characters; "tile" where nothing is left.

    `50% red, 12.5% dark green` becomes `50red-12.5dark_green`: commas turn to hyphens, spaces to underscores.
    """
    latin = unicodedata.normalize("NFKD", text.lower().translate(CYRILLIC)).encode("ascii", "ignore").decode("ascii")
    words = re.sub(r"(?<=[0-9])\s*%\s*", "", latin)
    words = re.sub(r"(?<![0-9])\.|\.(?![0-9])|[^a-z0-9.,;\s_-]", "", words)
    words = re.sub(r"[\s_-]*[,;-][\s,;_-]*", "-", words)
    words = re.sub(r"[\s_]+", "_", words)
    return words[:PROMPT_MAX_CHARACTERS].strip("-_.") or "tile"
