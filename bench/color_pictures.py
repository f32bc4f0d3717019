"""The pictures of docs/colours.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bench.color_mixes import STRENGTHS
from bench.color_studio import HELD_OUT_SEED, Studio
from worker.legend import draw_legend
from worker.views import view_floor

MIXES = (
    "50% red, 30% black, 20% pearl",
    "25% red, 25% blue, 25% yellow, 25% grass green",
    "40% brown, 30% gray, 30% white",
    "99% white, 1% red",
    "60% light green, 40% blue",
)
"""The first is what the shop's page shows; the others are orders that the service before this one got wrong."""

CELL_PX, LABEL_PX, GAP_PX = 300, 30, 8
QUALITY = 84


def draw_palette(studio: Studio, folder: Path) -> None:
    """Draw a swatch of each colour with its name and code."""
    colors = studio.manifest.colors.colors
    columns, width_px, height_px = 6, 150, 96
    sheet = Image.new("RGB", (columns * width_px, -(-len(colors) // columns) * height_px), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for number, color in enumerate(colors):
        left, top = number % columns * width_px, number // columns * height_px
        draw.rectangle((left + 6, top + 6, left + width_px - 6, top + 54), fill=color.srgb)
        draw.text((left + 8, top + 58), f"{color.name}\n{color.hex}", "black", font)
    sheet.save(folder / "palette.png", optimize=True)


def draw_mixes(studio: Studio, folder: Path) -> None:
    """Draw `MIXES` guided in the upper row and plain in the lower, with the color error of each."""
    rows = []
    for strength in (studio.manifest.render.strength, None):
        cells = []
        for number, text in enumerate(MIXES):
            mix = studio.read(text)
            pixels = studio.draw(mix, HELD_OUT_SEED + number, strength=strength)
            error = studio.measure(pixels, mix).color_error
            cells.append((_reduced(pixels), f"{'plain' if strength is None else 'guided'}: error {error:.3f}"))
        rows.append(cells)
    _sheet(rows).save(folder / "guided-plain.jpg", quality=QUALITY)


def draw_strengths(studio: Studio, folder: Path) -> None:
    """Draw one mix at every strength, cut out at full size."""
    mix, cells = studio.read(MIXES[0]), []
    for strength in STRENGTHS:
        pixels = studio.draw(mix, HELD_OUT_SEED, strength=strength)
        error = studio.measure(pixels, mix).color_error
        cells.append((pixels[:CELL_PX, :CELL_PX], f"strength {strength}: error {error:.3f}"))
    _sheet([cells[:4], cells[4:]]).save(folder / "strengths.jpg", quality=QUALITY)


def draw_floor(studio: Studio, folder: Path) -> None:
    """Draw one seamless tile, rolled by half so that its edges cross in the middle, and the floor laid of it."""
    tile = studio.draw(studio.read(MIXES[0]), HELD_OUT_SEED, strength=studio.manifest.render.strength, seamless=True)
    rolled = np.roll(tile, (tile.shape[0] // 2, tile.shape[1] // 2), (0, 1))
    cells = [(_reduced(rolled, 400), "rolled by half"), (_reduced(view_floor(tile, 30), 400), "30 degrees")]
    cells.append((_reduced(view_floor(tile, 60, grout=True), 400), "60 degrees, with grout"))
    _sheet([cells], 400).save(folder / "floor.jpg", quality=QUALITY)


def draw_legend_example(studio: Studio, folder: Path) -> None:
    """Draw the legend of a guided tile."""
    mix = studio.read(MIXES[0])
    pixels = studio.draw(mix, HELD_OUT_SEED, strength=studio.manifest.render.strength)
    Image.fromarray(draw_legend(studio.measure(pixels, mix).parts)).save(folder / "legend.png", optimize=True)


def _reduced(pixels: NDArray[np.uint8], side_px: int = CELL_PX) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.LANCZOS))


def _sheet(rows: Sequence[Sequence[tuple[NDArray[np.uint8], str]]], cell_px: int = CELL_PX) -> Image.Image:
    """Return rows of square pictures with a label under each."""
    width_px, height_px = cell_px + GAP_PX, cell_px + LABEL_PX
    sheet = Image.new("RGB", (width_px * max(map(len, rows)) - GAP_PX, height_px * len(rows)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    for row, cells in enumerate(rows):
        for column, (pixels, label) in enumerate(cells):
            sheet.paste(Image.fromarray(pixels), (column * width_px, row * height_px))
            draw.text((column * width_px + 2, row * height_px + cell_px + 5), label, "black", font)
    return sheet
