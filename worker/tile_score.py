"""Says whether a picture shows a tile of granules, and whether its opposite edges meet. Texture alone; colours do not count.

A tile is told by six figures of its lightness, on the cells of `worker.composition`: how much of its spectrum is fine,
whether that favours a direction, how strong and how even the contrast is, how much of the picture is gap, and how far it is
from the middle of the largest granule to a gap. Each is compared with what painted tiles have (`REFERENCE`). Cracks, lattices,
plain colour and rooms are far off in at least one of them. `./granule colours texture` measures all this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from worker.composition import cells_lightness, closed, find_gaps

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

PERIODS = (4.0, 8.0, 64.0, 128.0)
"""Periods in cells: fine is from the first to the second; from there to the third is where granules and their likes are."""
SECTORS = 12
BLOCKS = 8

REFERENCE: Mapping[str, tuple[float, float]] = {
    "fine": (-1.67, 0.80),
    "direction": (0.16, 0.06),
    "contrast": (-2.04, 0.15),
    "evenness": (0.05, 0.03),
    "gap": (0.29, 0.06),
    "radius": (2.64, 0.25),
}
"""Mean and spread of each figure in painted tiles of 1 to 5 colours, sharp and soft. The spreads are two to three times as
wide as the painted ones where a model's light and lens differ a little from the painter's."""
FREE = 2.0
"""Up to this many spreads off costs nothing."""

DECODER_PX = 8
"""A VAE's decoder draws in squares of this side; how much neighbours differ depends on the place in them."""
BESIDE = 2
"""How many lines on each side of an edge say how much is going on there."""
STEP_FLOOR = 3.0
"""A step of fewer levels is hardly seen; it is added to all, so that differences between those count little."""


def tile_score(pixels: NDArray[np.uint8]) -> float:
    """Return 1 for a picture (sRGB, height x width x 3) whose texture is a painted tile's, down to 0 for anything else."""
    figures = texture_figures(pixels)
    off = [max(0.0, abs(figures[name] - mean) / spread - FREE) for name, (mean, spread) in REFERENCE.items()]
    return round(math.exp(-0.5 * sum(value**2 for value in off)), 3)


def texture_figures(pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Return the figures of `REFERENCE`; `fine`, `contrast` and `radius` (cells) are natural logarithms."""
    lightness = cells_lightness(pixels)
    fine, direction = _spectrum(lightness)
    bright = closed(lightness)
    gap = find_gaps(lightness, bright)
    relative = np.asarray(lightness / np.maximum(bright, 1e-3), np.float32)
    spreads = _block_spreads(relative)
    radius = ndimage.distance_transform_edt(~gap).max() if gap.any() else max(lightness.shape)
    return {
        "fine": fine,
        "direction": direction,
        "contrast": math.log(float(relative.std()) + 1e-4),
        "evenness": float(spreads.std() / (spreads.mean() + 1e-6)),
        "gap": float(gap.mean()),
        "radius": math.log(float(radius) + 1),
    }


def seam_score(pixels: NDArray[np.uint8]) -> float:
    """Return how much more the picture changes across its edges, when laid beside itself, than on the lines next to them.

    About 1: no seam; the larger of both directions counts. Changes are averaged as logarithms: a seam changes a whole line a
    little, while a few granules that happen to end on it change a small part of it a lot. Each line's change is taken in
    proportion to what is usual at its place in the decoder's squares, which would otherwise make every edge look like a seam.
    """
    levels = pixels.astype(np.float32)
    return round(max(_seam(levels), _seam(levels.swapaxes(0, 1))), 3)


def _seam(levels: Floats) -> float:
    """Return the score of the edge between the last line and the first."""
    steps = np.abs(levels - np.roll(levels, 1, axis=0)).mean(axis=2)
    change = np.log(steps + np.float32(STEP_FLOOR)).mean(axis=1).astype(np.float64)
    inner = change.copy()
    inner[0] = np.nan
    places = np.arange(len(change)) % DECODER_PX
    usual = np.array([np.nanmean(inner[places == place]) for place in range(DECODER_PX)])
    unusual = change - usual[places]
    beside = np.concatenate([unusual[1 : 1 + BESIDE], unusual[-BESIDE:]])
    return math.exp(unusual[0] - beside.mean())


def _spectrum(lightness: Floats) -> tuple[float, float]:
    """Return how much of the power is fine, as a logarithm, and how unevenly the rest is spread over directions."""
    side = min(lightness.shape)
    square = lightness[:side, :side] - lightness[:side, :side].mean()
    window = np.hanning(side)
    power = np.abs(fft.rfft2(square * window[:, None] * window[None, :])) ** 2
    rows, columns = fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None, :]
    frequency = np.hypot(rows, columns)
    shortest, short, long, longest = (1 / period for period in PERIODS)
    fine = (frequency <= shortest) & (frequency > short)
    middle = (frequency <= short) & (frequency > long)
    whole = (frequency <= shortest) & (frequency > longest)
    turn = np.arctan2(rows, columns)[middle] / math.pi % 1
    sectors = np.bincount((turn * SECTORS).astype(int) % SECTORS, weights=power[middle], minlength=SECTORS)
    share = (power[fine].sum() + 1e-12) / (power[whole].sum() + 1e-9)
    return math.log(share), float(sectors.std() / (sectors.mean() + 1e-9))


def _block_spreads(values: Floats) -> Doubles:
    """Return the standard deviation in each of `BLOCKS` x `BLOCKS` parts of the picture."""
    height, width = (length // BLOCKS for length in values.shape)
    blocks = values[: height * BLOCKS, : width * BLOCKS].reshape(BLOCKS, height, BLOCKS, width)
    return np.asarray(blocks.std(axis=(1, 3)), np.float64).ravel()
