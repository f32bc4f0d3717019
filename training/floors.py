"""Paints the floors that mini's base model knows: polished terrazzo, and pebbles laid in cement. Rubber is neither.

Terrazzo is flat and evenly lit, with large angular stones. Pebbles have a relief, come in all sizes, and are lit from any
side but the one that a rubber tile is lit from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.palette import Color
from worker.painter import (
    GAP,
    Floats,
    Light,
    PaintedTile,
    cut_granules,
    light_granules,
    share_out,
    smooth_noise,
    to_linear,
    to_srgb,
)

_CEMENT_SRGB = (158, 155, 148)
_PEBBLES_PX = (22.0, 60.0)
_LIT_FROM_DEG = (170.0, 440.0)


def paint_terrazzo(
    shares: Sequence[tuple[Color, float]], *, rng: np.random.Generator, size_px: int = 512, stone_px: float = 52.0
) -> PaintedTile:
    """Paint a terrazzo floor of `size_px` squared whose stones, about `stone_px` wide, split their area as `shares` says.

    `labels` is GAP in the cement. Stones are mottled and keep the palette's colour as their median.
    """
    cut = cut_granules(size_px, stone_px, rng, warp=0.16, stretch=0.4)
    seam_px = stone_px * rng.uniform(0.03, 0.13, cut.count).astype(np.float32)[cut.ids]
    cement = np.clip(0.5 + (seam_px - cut.edge_px) / 1.6, 0, 1)
    face = cement < 0.5
    color_of = share_out(cut, face, [share for _, share in shares], rng)
    albedo = to_linear(np.asarray([color.srgb for color, _ in shares], np.float32))[color_of]
    tone = np.exp(rng.normal(0, 0.06, (cut.count, 1))).astype(np.float32)
    mottle = 1 + 0.05 * smooth_noise(size_px, stone_px / 5, rng) + 0.025 * smooth_noise(size_px, 1.2, rng)
    stone = (albedo * tone)[cut.ids] * mottle[..., None]
    pixels = to_srgb(stone * (1 - cement[..., None]) + _cement(size_px, rng) * cement[..., None])
    return PaintedTile(pixels, np.where(face, color_of[cut.ids], GAP).astype(np.int8))


def paint_pebbles(shares: Sequence[tuple[Color, float]], *, rng: np.random.Generator, size_px: int = 512) -> PaintedTile:
    """Paint a floor of `size_px` squared of rounded pebbles of one random size, set in cement that is lit like them.

    `labels` is GAP in the cement. The pebbles split their area as `shares` says and keep the palette's colour as their median.
    """
    cut = cut_granules(size_px, rng.uniform(*_PEBBLES_PX), rng, warp=rng.uniform(0.2, 1.0))
    light = Light(azimuth_deg=rng.uniform(*_LIT_FROM_DEG), elevation_deg=rng.uniform(45, 70))
    lit = light_granules(cut, light, rng)
    color_of = share_out(cut, lit.face, [share for _, share in shares], rng)
    albedo = to_linear(np.asarray([color.srgb for color, _ in shares], np.float32))[color_of]
    tone = np.exp(rng.normal(0, 0.06, (cut.count, 1))).astype(np.float32)
    gap = lit.gap[..., None]
    stone = (albedo * tone)[cut.ids] * (1 - gap) + 0.8 * _cement(size_px, rng) * gap
    pixels = to_srgb(stone * lit.shade[..., None])
    return PaintedTile(pixels, np.where(lit.face, color_of[cut.ids], GAP).astype(np.int8))


def _cement(size_px: int, rng: np.random.Generator) -> Floats:
    """Return the linear reflectance of sanded cement, size x size x 3."""
    sand = 1 + 0.07 * smooth_noise(size_px, 1.6, rng) + 0.05 * smooth_noise(size_px, 5, rng)
    return to_linear(np.asarray(_CEMENT_SRGB, np.float32)) * sand[..., None]
