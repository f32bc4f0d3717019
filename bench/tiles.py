"""A tile to measure with, painted, with the grain and the noise of a drawn one; and an order of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.jobs import JobSpec, Lane, RenderSpec, new_id
from shared.palette import load_palette
from worker.painter import paint_tile

PROMPT = "50% red, 30% black, 20% pearl"
MIX = {"red": 50.0, "black": 30.0, "pearl": 20.0}


def painted_tile(size_px: int = 1024) -> NDArray[np.uint8]:
    """Paint the same tile of three colours at every call: uint8, `size_px` x `size_px` x 3."""
    palette = load_palette()
    shares = [(color, MIX[color.name]) for color in palette.colors if color.name in MIX]
    return paint_tile(shares, rng=np.random.default_rng(1), size_px=size_px).pixels


def order_of(model: str) -> JobSpec:
    """One order of a tile of three colours, with an id of its own."""
    return JobSpec(
        id=new_id(),
        tenant="bench",
        model=model,
        version="0" * 64,
        lane=Lane.NORMAL,
        input={"prompt": PROMPT},
        render=RenderSpec(PROMPT, None, 1, 20, 7.0, 1024, 1024, "png", 90),
        mix=list(MIX.items()),
        warnings=[],
        base_url="http://127.0.0.1",
        file_token=new_id(),
        filename="tile.png",
    )
