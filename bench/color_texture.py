"""How well `worker.tile_score` tells tiles from the rest, and seamless tiles from others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bench.color_studio import HELD_OUT_SEED, Studio
from shared.palette import Color
from training.terrazzo import paint_terrazzo
from worker.painter import Light, paint_tile, smooth_noise
from worker.tile_score import REFERENCE, seam_score, texture_figures, tile_score

SIZE_PX = 1024
SEAM_MAX = 1.1
"""What a seamless tile is held to."""


def measure_seams(studio: Studio, count: int) -> Mapping[str, Any]:
    """Draw `count` seamless tiles, guided and plain, and as many that are not, and return their seam scores.

    Beside each stands the score of the same tile cut in its middle, where no seam can be: what chance alone does.
    """
    guided = studio.manifest.render.strength
    found: dict[str, Any] = {"count": count}
    for name, strength, seamless in (("guided", guided, True), ("plain", None, True), ("not seamless", guided, False)):
        edges, middles = [], []
        for number, mix in enumerate(studio.mixes(count)):
            tile = studio.draw(mix, HELD_OUT_SEED + number, strength=strength, seamless=seamless)
            edges.append(seam_score(tile))
            middles.append(seam_score(np.roll(tile, (SIZE_PX // 2, SIZE_PX // 2), (0, 1))))
        found[name] = _summary(edges) | {"scores": edges} | ({"middle": _summary(middles)} if seamless else {})
    return found


def measure_texture(studio: Studio, count: int) -> Mapping[str, Any]:
    """Return the figures of `count` painted tiles, and the tile scores of those, of drawn ones, and of what is no tile."""
    colors = studio.manifest.colors.colors
    tiles = [painted(np.random.default_rng(HELD_OUT_SEED + number), colors) for number in range(count)]
    figures = [texture_figures(tile) for tile in tiles]
    scores = {"painted": [tile_score(tile) for tile in tiles]}
    for draw in (cracks, lattice, plain_color, room, clouds, terrazzo):
        scores[draw.__name__] = [tile_score(draw(np.random.default_rng(HELD_OUT_SEED + n), colors)) for n in range(count)]
    return {
        "count": count,
        "figures": {name: _spread([found[name] for found in figures]) for name in REFERENCE},
        "scores": {name: {"mean": round(float(np.mean(s)), 3), "min": min(s), "max": max(s)} for name, s in scores.items()},
    }


def _summary(scores: list[float]) -> dict[str, float]:
    over = sum(score > SEAM_MAX for score in scores)
    return {"mean": round(float(np.mean(scores)), 3), "min": min(scores), "max": max(scores), "over": over}


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": round(float(np.mean(values)), 3), "std": round(float(np.std(values)), 3)}


def painted(rng: np.random.Generator, colors: tuple[Color, ...]) -> NDArray[np.uint8]:
    """Paint a tile of 1 to 5 colours with granules of 28 to 42 px, any light, more or less sharp."""
    chosen = rng.choice(len(colors), int(rng.integers(1, 6)), replace=False)
    light = Light(float(rng.uniform(0, 360)), float(rng.uniform(32, 58)))
    shares = [(colors[index], float(rng.uniform(1, 10))) for index in chosen]
    tile = paint_tile(shares, rng=rng, size_px=SIZE_PX, granule_px=float(rng.uniform(28, 42)), light=light)
    blur_px = rng.uniform(0, 1.6)
    return np.asarray(ndimage.gaussian_filter(tile.pixels, (blur_px, blur_px, 0)))


def cracks(rng: np.random.Generator, colors: tuple[Color, ...]) -> NDArray[np.uint8]:
    """A dried-out plain of one colour."""
    return paint_tile([(_one(rng, colors), 1.0)], rng=rng, size_px=SIZE_PX, granule_px=float(rng.uniform(130, 250))).pixels


def lattice(rng: np.random.Generator, colors: tuple[Color, ...]) -> NDArray[np.uint8]:
    """Lozenges with dark lines, of about a granule's size."""
    period_px, slant = rng.uniform(30, 60), rng.uniform(0.5, 1.1)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    along, across = x * np.cos(slant), y * np.sin(slant)
    near = np.minimum(*(np.abs(place / period_px % 1 - 0.5) for place in (along + across, along - across)))
    return _lit(_one(rng, colors), 0.25 + 0.75 * np.clip(near / 0.08, 0, 1), 6, rng)


def plain_color(rng: np.random.Generator, colors: tuple[Color, ...]) -> NDArray[np.uint8]:
    """One colour with slow changes of light and a little noise."""
    return _lit(_one(rng, colors), 1 + 0.05 * smooth_noise(SIZE_PX, 300, rng), float(rng.uniform(0, 12)), rng)


def clouds(rng: np.random.Generator, colors: tuple[Color, ...]) -> NDArray[np.uint8]:
    """Smooth blobs of any size."""
    return _lit(_one(rng, colors), 1 + 0.25 * smooth_noise(SIZE_PX, float(rng.uniform(2, 40)), rng), 0, rng)


def room(rng: np.random.Generator, colors: tuple[Color, ...]) -> NDArray[np.uint8]:
    """Boxes and discs of all sizes before a wall, as in a kitchen."""
    picture = np.full((SIZE_PX, SIZE_PX, 3), rng.integers(150, 240, 3), np.float32)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    for _ in range(14):
        left, top, width, height = *rng.integers(0, SIZE_PX, 2), *rng.integers(80, 420, 2)
        picture[top : top + height, left : left + width] = rng.integers(30, 235, 3)
    for _ in range(25):
        center_x, center_y, radius = *rng.integers(0, SIZE_PX, 2), rng.integers(8, 60)
        picture[(x - center_x) ** 2 + (y - center_y) ** 2 < radius**2] = rng.integers(20, 250, 3)
    picture *= np.linspace(0.6, 1.1, SIZE_PX, dtype=np.float32)[:, None, None]
    return np.asarray(np.clip(picture + rng.normal(0, 4, (SIZE_PX, SIZE_PX, 1)), 0, 255), np.uint8)


def terrazzo(rng: np.random.Generator, colors: tuple[Color, ...]) -> NDArray[np.uint8]:
    """A polished floor with chips of the same size."""
    chosen = rng.choice(len(colors), 3, replace=False)
    return paint_terrazzo([(colors[index], 1 / 3) for index in chosen], rng=rng, size_px=SIZE_PX).pixels


def _one(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    return colors[int(rng.integers(len(colors)))]


def _lit(color: Color, light: NDArray[Any], noise: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    picture = np.array(color.srgb) * light[..., None] + rng.normal(0, noise, (SIZE_PX, SIZE_PX, 1))
    return np.asarray(np.clip(picture, 0, 255), np.uint8)
