"""Paints polished terrazzo: large angular stones in cement, flat and evenly lit. It is all that mini's base model knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.palette import Color
from worker.painter import GAP, PaintedTile, cut_granules, share_out, smooth_noise, to_linear, to_srgb

_CEMENT_SRGB = (158, 155, 148)


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
    sand = 1 + 0.07 * smooth_noise(size_px, 1.6, rng) + 0.05 * smooth_noise(size_px, 5, rng)
    stone = (albedo * tone)[cut.ids] * mottle[..., None]
    bed = to_linear(np.asarray(_CEMENT_SRGB, np.float32)) * sand[..., None]
    pixels = to_srgb(stone * (1 - cement[..., None]) + bed * cement[..., None])
    return PaintedTile(pixels, np.where(face, color_of[cut.ids], GAP).astype(np.int8))
