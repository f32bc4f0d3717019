"""Renders twelve mixes into one picture: `python -m training.contact_sheet`, with `--plain` from the words alone.

Without it, tiles are drawn as the manifest draws an order: guided, where that is its default.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from shared.manifest import load_manifest
from shared.palette import load_palette
from training.architecture import MODELS
from training.evaluate import Bench, WholeMix

MIXES = (
    "50% red, 30% black, 20% pearl",
    "100% terracotta",
    "60% gray, 40% white",
    "70% dark green, 30% lime green",
    "85% black, 15% yellow",
    "40% blue, 40% sky blue, 20% white",
    "55% brown, 45% beige",
    "25% red, 25% blue, 25% yellow, 25% grass green",
    "90% dark gray, 10% orange",
    "50% turquoise, 30% white, 20% dark blue",
    "34% lilac, 33% violet, 33% pearl",
    "60% sand, 25% khaki, 15% salmon",
)
COLUMNS = 4
TILE_PX = 420
LABEL_PX = 34
MARGIN_PX = 14


def read_mix(text: str) -> WholeMix:
    """Turn one of `MIXES` into colours and percents. The full grammar of prompts is `shared.prompts`' business."""
    palette, mix = load_palette(), []
    for part in text.split(", "):
        percent, name = part.split("% ")
        color = palette.find(name)
        if color is None:
            raise ValueError(f"{name!r} is no colour of the palette")
        mix.append((color, int(percent)))
    return mix


def lay_out(pictures: Sequence[NDArray[np.uint8]], labels: Sequence[str]) -> Image.Image:
    """Return the pictures, reduced to `TILE_PX`, in rows of four with a label under each."""
    rows = -(-len(pictures) // COLUMNS)
    cell_x, cell_y = TILE_PX + MARGIN_PX, TILE_PX + LABEL_PX
    sheet = Image.new("RGB", (COLUMNS * cell_x + MARGIN_PX, rows * cell_y + MARGIN_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for place, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left = MARGIN_PX + place % COLUMNS * cell_x
        top = MARGIN_PX + place // COLUMNS * cell_y
        sheet.paste(Image.fromarray(picture).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS), (left, top))
        draw.text((left, top + TILE_PX + 6), label, fill="black", font=font)
    return sheet


def main() -> None:
    """Read the command line, render, write the sheet."""
    parser = argparse.ArgumentParser(
        prog="python -m training.contact_sheet", description="Render twelve mixes into one picture."
    )
    parser.add_argument("--manifest", type=Path, default=MODELS / "rubber-tile-mini.toml")
    parser.add_argument("--out", type=Path, default=MODELS.parent / "docs" / "pictures" / "contact-sheet.jpg")
    parser.add_argument("--plain", action="store_true", help="draw from the words alone, without painted tiles")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    arguments = parser.parse_args()
    manifest = load_manifest(arguments.manifest)
    bench, guided = Bench(manifest, arguments.threads), manifest.render.guidance_mode == "guided" and not arguments.plain
    pictures = [bench.draw(read_mix(text), seed, guided=guided)[0] for seed, text in enumerate(MIXES)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lay_out(pictures, MIXES).save(arguments.out, quality=88)


if __name__ == "__main__":
    main()
