"""Makes a model draw on a torus: whatever leaves a picture at one edge comes in at the opposite one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch import nn


@contextmanager
def circular_padding(unet: Any, vae: Any) -> Iterator[None]:
    """Inside the block every padded convolution of both pads with the opposite edge, and the VAE works in one piece.

    A VAE that decodes in tiles would let each of them wrap onto itself. However the block ends, both are as they were: the
    next picture must not inherit any of it.
    """
    tiling = vae.use_tiling
    try:
        vae.use_tiling = False
        with _padding("circular", unet, vae):
            yield
    finally:
        vae.use_tiling = tiling


@contextmanager
def plain_padding(vae: Any) -> Iterator[None]:
    """Inside the block the VAE pads with zeros, also in the middle of a block of `circular_padding`."""
    with _padding("zeros", vae):
        yield


@contextmanager
def _padding(mode: Literal["circular", "zeros"], *parts: Any) -> Iterator[None]:
    convolutions = [
        module for part in parts for module in part.modules() if isinstance(module, nn.Conv2d) and any(module.padding)
    ]
    before = [convolution.padding_mode for convolution in convolutions]
    try:
        for convolution in convolutions:
            convolution.padding_mode = mode
        yield
    finally:
        for convolution, old in zip(convolutions, before, strict=True):
            convolution.padding_mode = old
