"""The mix a tile is ordered in: `50% red, 30% black, 20% pearl`.

Nothing is guessed here: shares are never scaled to fit and a colour is never replaced by another. What cannot be right is
refused with a text that says what would be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from shared.errors import PromptInvalid
from shared.palette import Color, Palette, fold

SUM_TOLERANCE = 0.5
"""How far, in percent, the shares may be from 100: three thirds of 33.3 are a whole, of 33 they are not."""

SHARE = re.compile(r"(?P<number>[+\-\u2212]?(?:[0-9]+(?:[.,][0-9]*)?|\.[0-9]+))\s*%\s*(?P<name>.*)", re.DOTALL)
SECOND_SHARE = re.compile(r"[0-9]\s*%")
# Commas separate, except inside the number that a part begins with: "12,5% red,87,5% blue".
PIECE = re.compile(r"\s*(?:[+\-\u2212]?[0-9]+,[0-9]+\s*%)?[^,;]*")
QUOTED_MAX = 60


@dataclass(frozen=True, slots=True)
class Part:
    """One colour of a mix and its share in percent, above 0 and at most 100, in steps of 0.01.

    `name` is the palette's caption, or what the caller wrote where the palette has no such colour (`color` is None).
    """

    color: Color | None
    name: str
    share: float

    def __str__(self) -> str:
        return f"{format_share(self.share)}% {self.name}"


@dataclass(frozen=True, slots=True)
class Mix:
    """The ordered parts, whose shares sum to 100 within `SUM_TOLERANCE`. As text it is the caption that the model sees."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.parts))

    @property
    def ordered(self) -> tuple[tuple[Color, float], ...]:
        """The palette colours with their shares in percent, in the order written; words without a colour are left out."""
        return tuple((part.color, part.share) for part in self.parts if part.color is not None)

    @property
    def painted(self) -> tuple[tuple[str, float], ...]:
        """What a guide is painted of, as (`#RRGGBB`, percent); nothing unless every part is a colour of the palette."""
        return tuple((color.hex, share) for color, share in self.ordered) if len(self.ordered) == len(self.parts) else ()


def format_share(share: float) -> str:
    """Write a share with at most two decimals and no zeros at the end: 50, 12.5, 33.33."""
    return f"{share:.2f}".rstrip("0").rstrip(".")


def split_parts(text: str) -> list[str]:
    """Cut a prompt at its commas and semicolons; empty pieces are dropped, a decimal comma (`12,5%`) is no separator."""
    return [piece.strip() for piece in PIECE.findall(text) if piece.strip()]


def parse_part(text: str, palette: Palette) -> Part | None:
    """Read `50% red`; None where the text does not begin with a share.

    Raises:
        PromptInvalid: the share is not above 0 and at most 100, no colour follows it, or another share does.
    """
    match = SHARE.fullmatch(text.strip())
    if match is None:
        return None
    name = " ".join(match["name"].split())
    if SECOND_SHARE.search(name):
        raise _invalid(f"{quote(text)} holds more than one share; write a comma between the parts")
    if not fold(name):
        raise _invalid(f"{quote(text)} names no colour; write it after the share, as in '50% red'")
    share = round(float(match["number"].replace(",", ".").replace("\u2212", "-")), 2)
    if share <= 0:
        raise _invalid(f"{quote(text)}: a share is at least 0.01%; leave the colour out, or give it a share above 0")
    if share > 100:
        raise _invalid(f"{quote(text)}: a share is at most 100%")
    color = palette.find(name)
    return Part(color, color.name if color else name, share)


def check_mix(parts: Sequence[Part]) -> Mix:
    """Put parts together to a mix.

    Raises:
        PromptInvalid: a colour stands in it twice, or the shares do not sum to 100 within `SUM_TOLERANCE`.
    """
    seen: dict[str, Part] = {}
    for part in parts:
        first = seen.setdefault(fold(part.name), part)
        if first is not part:
            raise _invalid(
                f"{quote(part.name)} stands in the mix twice, as {quote(str(first))} and {quote(str(part))}; "
                "write it once, with the share of both"
            )
    total = round(sum(part.share for part in parts), 2)
    if abs(total - 100) > SUM_TOLERANCE:
        gap = f"{format_share(abs(100 - total))}% {'is missing' if total < 100 else 'is too much'}"
        listed = ", ".join(map(str, parts))
        raise _invalid(f"the shares of {quote(listed, 200)} sum to {format_share(total)}% and must sum to 100%: {gap}")
    return Mix(tuple(parts))


def quote(text: str, longest: int = QUOTED_MAX) -> str:
    """Put a caller's text in quotation marks for a message, cut to `longest` characters."""
    return repr(text if len(text) <= longest else text[: longest - 1] + "…")


def _invalid(detail: str) -> PromptInvalid:
    return PromptInvalid(detail, field="prompt")
