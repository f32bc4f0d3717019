"""A tile to measure with: painted, with the grain and the noise of a drawn one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.palette import load_palette
from worker.painter import paint_tile

MIX = {"red": 50.0, "black": 30.0, "pearl": 20.0}


def painted_tile(size_px: int = 1024) -> NDArray[np.uint8]:
    """Paint the same tile of three colours at every call: uint8, `size_px` x `size_px` x 3."""
    palette = load_palette()
    shares = [(color, MIX[color.name]) for color in palette.colors if color.name in MIX]
    return paint_tile(shares, rng=np.random.default_rng(1), size_px=size_px).pixels
