"""Gives a picture its colours before the model gives it its look: drawing begins with a painted tile instead of with noise.

The tile has the ordered shares exactly. It is encoded, noised to `strength` and denoised by the same model (SDEdit: Meng et
al., "SDEdit: Guided image synthesis and editing with stochastic differential equations", 2022). The less noise, the truer
the colours; the more, the more of the picture is the model's own. `docs/colours.md` has the curve of both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared.jobs import RenderSpec
from shared.palette import Color, parse_hex
from worker.composition import measure_composition
from worker.painter import GAP, PaintedTile, paint_tile

Shares = list[tuple[Color, float]]

WRAP_LATENTS = 8
"""A seamless tile is encoded with this much of its other side around it: the encoder pads with zeros, and sees that far."""


PROOF_PX = 512
"""Side of the tile that is painted to see what the autoencoder does to the shares."""
CORRECTION_MAX = 0.5
"""No share is painted smaller or larger by more than this part of it."""


def paint_guide(spec: RenderSpec, through_vae: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Paint the tile that a guided picture begins with: sRGB, height x width x 3. The spec's seed decides every granule.

    `through_vae` encodes and decodes a picture. An autoencoder moves the shares a little, mostly because bright granules
    swell into the gaps; so a small proof of the same mix is sent through it first, and what it adds is painted less.
    """
    shares = [(Color(code=srgb, name=srgb, name_ru="", aliases=(), srgb=parse_hex(srgb)), part) for srgb, part in spec.painted]
    if len(shares) > 1:
        proof = _paint(spec, shares, min(PROOF_PX, spec.width_px))
        shares = _corrected(shares, proof, through_vae(proof.pixels))
    return _paint(spec, shares, spec.width_px).pixels


def _paint(spec: RenderSpec, shares: Shares, size_px: int) -> PaintedTile:
    return paint_tile(
        shares,
        rng=np.random.default_rng(spec.seed),
        size_px=size_px,
        granule_px=min(spec.granule_px, size_px / 4),
        seamless=spec.seamless,
    )


def _corrected(shares: Shares, proof: PaintedTile, seen: NDArray[np.uint8]) -> Shares:
    """Return shares in percent that come out as the ordered ones, from a proof and what the autoencoder made of it."""
    ordered = np.array([share for _, share in shares])
    painted = np.bincount(proof.labels[proof.labels != GAP], minlength=len(shares))
    found = np.array([part.measured for part in measure_composition(seen, shares).parts[:-1]])
    gain = 100 * found / max(found.sum(), 1) - 100 * painted / painted.sum()
    weights = np.clip(ordered - gain, (1 - CORRECTION_MAX) * ordered, (1 + CORRECTION_MAX) * ordered)
    return [(color, float(weight)) for (color, _), weight in zip(shares, weights, strict=True)]


@torch.no_grad()
def encode_pixels(vae: Any, pixels: NDArray[np.uint8], *, wrap: bool = False) -> torch.Tensor:
    """Return the latents of an sRGB picture, 1 x 4 x height / 8 x width / 8, scaled as the UNet reads them.

    The mean of the encoder's distribution is taken, not a sample: the same picture gives the same latents. `wrap` says that
    opposite edges of the picture continue each other.
    """
    if wrap:
        margin_px = 8 * WRAP_LATENTS
        pixels = np.pad(pixels, ((margin_px, margin_px), (margin_px, margin_px), (0, 0)), mode="wrap")
    levels = torch.from_numpy(np.ascontiguousarray(pixels)).to(vae.device).permute(2, 0, 1)[None]
    image = (levels.float() / 127.5 - 1).to(dtype=vae.dtype, memory_format=torch.channels_last)
    latents: torch.Tensor = vae.encode(image).latent_dist.mode() * vae.config.scaling_factor
    if wrap:
        latents = latents[..., WRAP_LATENTS:-WRAP_LATENTS, WRAP_LATENTS:-WRAP_LATENTS]
    return latents
