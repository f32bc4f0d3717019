"""A rough picture of what is being drawn, from its latents alone: a linear map from four channels to red, green and blue.

Every autoencoder has a latent space of its own, so the map is fitted to the model's: by least squares, on painted tiles that
it encodes. That takes up to a second of a CPU, once, when the first preview is asked for: no worker's start waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared.palette import Color
from worker.guided import encode_pixels
from worker.painter import paint_tile
from worker.seamless import plain_padding

LATENT_PX = 8
"""Pixels of the picture that one latent stands for, along each side."""
TILE_PX = 256
TILES = 2
GRANULE_PX = 34.0


class LatentPreview:
    """Turns latents of one autoencoder into pixels. `colors` are those of the tiles that it learns from."""

    def __init__(self, vae: Any, colors: Sequence[Color]) -> None:
        self._vae = vae
        self._colors = colors
        self._map: torch.Tensor | None = None

    @torch.no_grad()
    def pixels(self, latents: torch.Tensor) -> NDArray[np.uint8]:
        """Return sRGB pixels, height / 8 x width / 8 x 3, of latents (4 x height / 8 x width / 8) as the UNet reads them."""
        if self._map is None:
            # The first to ask may be in the middle of a seamless picture, and the map is for all.
            with plain_padding(self._vae):
                self._map = self._fit()
        levels = _with_constant(latents) @ self._map
        shown: NDArray[np.uint8] = levels.clamp(0, 255).round().to(torch.uint8).cpu().numpy()
        return shown.reshape(*latents.shape[-2:], 3)

    def _fit(self) -> torch.Tensor:
        """Return the map, 5 x 3 (four channels and a constant), that comes nearest to the mean colour of each 8 x 8 pixels."""
        tiles = [self._paint(seed) for seed in range(TILES)]
        latents = torch.cat([_with_constant(encode_pixels(self._vae, tile)[0]) for tile in tiles])
        side = TILE_PX // LATENT_PX
        means = [tile.reshape(side, LATENT_PX, side, LATENT_PX, 3).mean(axis=(1, 3)).reshape(-1, 3) for tile in tiles]
        levels = np.concatenate(means)
        found, *_ = np.linalg.lstsq(latents.cpu().double().numpy(), levels, rcond=None)
        return torch.from_numpy(found).float().to(latents.device)

    def _paint(self, seed: int) -> NDArray[np.uint8]:
        shares = [(color, 1.0) for color in self._colors]
        return paint_tile(shares, rng=np.random.default_rng(seed), size_px=TILE_PX, granule_px=GRANULE_PX).pixels


def _with_constant(latents: torch.Tensor) -> torch.Tensor:
    """Return one row for each latent: its channels in float32, and 1."""
    rows = latents.float().flatten(1).T
    return torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
