"""Draws the legend of a tile: a swatch for each colour with the ordered and the measured share, for pages and price lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worker.composition import ColorShare

WIDTH_PX, ROW_PX, MARGIN_PX, SWATCH_PX = 720, 72, 24, 52
COLUMNS_PX = (100, 470, 696)
"""Where the name begins, and where the shares end."""
INK, FAINT, PAPER, RULE = "#1E1E1E", "#6B6B6B", "#FFFFFF", "#D8D8D8"


def draw_legend(parts: Sequence[ColorShare]) -> NDArray[np.uint8]:
    """Return the legend of a composition as an sRGB picture, height x 720 x 3.

    Each colour's swatch is its own on the left and, on the right, what it looks like in the picture. The last of `parts`,
    what is none of the colours, has a row where it was ordered or is at least one percent.
    """
    rows = [part for part in parts if part.srgb or part.ordered or part.measured >= 1]
    sheet = Image.new("RGB", (WIDTH_PX, 2 * MARGIN_PX + ROW_PX * len(rows) + ROW_PX // 2), PAPER)
    draw = ImageDraw.Draw(sheet)
    small, large = ImageFont.load_default(size=20), ImageFont.load_default(size=26)
    for text, right_px in zip(("ordered", "in the picture"), COLUMNS_PX[1:], strict=True):
        draw.text((right_px, MARGIN_PX), text, FAINT, small, anchor="ra")
    for number, part in enumerate(rows):
        top_px = MARGIN_PX + ROW_PX // 2 + ROW_PX * number
        middle_px = top_px + ROW_PX / 2
        draw.line((MARGIN_PX, top_px, WIDTH_PX - MARGIN_PX, top_px), RULE)
        _draw_swatch(draw, part, MARGIN_PX, top_px + (ROW_PX - SWATCH_PX) // 2)
        draw.text((COLUMNS_PX[0], middle_px), part.color, INK, large, anchor="lm")
        for share, right_px in zip((part.ordered, part.measured), COLUMNS_PX[1:], strict=True):
            draw.text((right_px, middle_px), f"{share:.1f} %", INK, large, anchor="rm")
    return np.asarray(sheet)


def _draw_swatch(draw: ImageDraw.ImageDraw, part: ColorShare, left_px: int, top_px: int) -> None:
    if part.srgb is None:
        return
    right_px, bottom_px = left_px + SWATCH_PX, top_px + SWATCH_PX
    draw.rectangle((left_px, top_px, right_px, bottom_px), fill=part.srgb)
    draw.rectangle((left_px + SWATCH_PX // 2, top_px, right_px, bottom_px), fill=part.measured_srgb or part.srgb)
    draw.rectangle((left_px, top_px, right_px, bottom_px), outline=RULE)
