"""Makes a model draw on a torus: whatever leaves a picture at one edge comes in at the opposite one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def circular_padding(unet: Any, vae: Any) -> Iterator[None]:
    """Inside the block every padded convolution of both pads with the opposite edge, and the VAE works in one piece.

    A VAE that decodes in tiles would let each of them wrap onto itself. However the block ends, both are as they were: the
    next picture must not inherit any of it.
    """
    convolutions = [
        module for part in (unet, vae) for module in part.modules() if isinstance(module, nn.Conv2d) and any(module.padding)
    ]
    modes, tiling = [convolution.padding_mode for convolution in convolutions], vae.use_tiling
    try:
        vae.use_tiling = False
        for convolution in convolutions:
            convolution.padding_mode = "circular"
        yield
    finally:
        vae.use_tiling = tiling
        for convolution, mode in zip(convolutions, modes, strict=True):
            convolution.padding_mode = mode
