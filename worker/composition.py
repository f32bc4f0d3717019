"""Measures what a finished picture holds: the share of each ordered colour, and of anything else.

Works on about 512 x 512 cells (the mean of 2 x 2 pixels of a 1024 picture) in OKLab, in three steps:

1. How far is each cell from each ordered colour? Relief changes how much light a granule sends back, which moves its colour
   along the line from black through the swatch. So the distance across that line (another chroma) weighs much, the distance
   along it (more or less light) little; both are capped, so that a highlight or an edge cannot outvote its surroundings.
2. Which cells are binder? Gaps are thin and dark, granules are thick: a cell is a gap if it is darker than the picture after
   a grey closing, which fills whatever is thinner than its window. Where the cell could be a dark granule by its colour only
   the narrowest window counts, so that slivers of ordered black are not taken for gaps. Gaps belong to no share.
3. Distances are averaged over the faces around each cell, and the nearest colour has it; a cell that is far from every
   ordered colour is `other`.

A colour that was not ordered is `other` unless it lies near the line of an ordered one (sand beside yellow, light gray beside
gray); then it is counted there, and `ciede2000` of that part says how far off it is. `bench/composition.py` measures the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from shared.palette import Color
from worker.colorimetry import ciede2000, linear_to_oklab, srgb_to_cielab
from worker.painter import to_linear

Floats = NDArray[np.float32]

CELLS = 512
"""Cells along the shorter side, about; a granule is then some 17 cells wide and a gap 2."""

LIGHT_SPREAD = 0.13
"""Standard deviation of ln(L) on the faces of one colour; L is the cube root of light, so this is 0.39 in ln(light)."""
CHROMA_SPREAD = 0.015
"""Standard deviation of a and b across the line."""
FAR = 25.0
"""Cap of a squared distance, in squared standard deviations."""
OTHER = 0.75 * FAR
"""A cell is `other` beyond this mean: a chroma of about 0.065 off, or less than 0.57 or more than 1.76 times the L."""

GAP_WINDOW, SLIVER_WINDOW = 7, 3
GAP_DEPTH = 0.85
"""A gap's L is less than this part of the closed picture's."""
PLAUSIBLE = 2.0
"""A cell nearer than this to an ordered colour may be a dark granule."""
NEIGHBORHOOD = 5
SEEN_MIN = 0.001
"""Part of the cells below which a colour's own appearance is not judged."""


@dataclass(frozen=True, slots=True)
class ColorShare:
    """One line of the result: shares in percent, and the CIEDE2000 from the swatch to the colour's median in the picture.

    `color` is a caption, or "other", which is always ordered at 0 and has no swatch. `ciede2000` is None where too little of
    the colour was found to judge.
    """

    color: str
    ordered: float
    measured: float
    ciede2000: float | None = None


@dataclass(frozen=True, slots=True)
class Composition:
    """What a picture was measured to hold.

    `parts` are the ordered colours in their order and, last, `other`; measured shares sum to 100. `color_error` is the
    total variation between ordered and measured: 0 if they agree, 1 if nothing ordered was found.
    """

    parts: tuple[ColorShare, ...]
    color_error: float

    @property
    def other(self) -> float:
        """Percent of the picture that is no ordered colour."""
        return self.parts[-1].measured


def measure_composition(pixels: NDArray[np.uint8], ordered: Sequence[tuple[Color, float]]) -> Composition:
    """Measure a picture (sRGB, height x width x 3) against the colours that were ordered, at least one, in percent.

    Any picture gets an answer: one of a single colour, of a few pixels, or of something else altogether.
    """
    sums, side = _cells(pixels)
    levels = np.linspace(0, 255, 255 * side**2 + 1, dtype=np.float32)
    lab = linear_to_oklab(to_linear(levels)[sums])
    swatches = np.array([color.srgb for color, _ in ordered], np.float32)
    distances = [_distance(lab, anchor) for anchor in linear_to_oklab(to_linear(swatches))]
    face = _faces(lab[..., 0], np.minimum.reduce(distances))
    nearest = np.where(face, _nearest(distances, face), -1)
    counts = np.bincount(nearest[face], minlength=len(ordered) + 1) / np.count_nonzero(face)
    parts = [
        ColorShare(
            color.name,
            float(share),
            round(100 * float(counts[index]), 2),
            _difference(color, levels[sums[::2, ::2][nearest[::2, ::2] == index]]) if counts[index] > SEEN_MIN else None,
        )
        for index, (color, share) in enumerate(ordered)
    ]
    parts.append(ColorShare("other", 0.0, round(100 * float(counts[-1]), 2)))
    error = sum(abs(part.ordered - part.measured) for part in parts) / 200
    return Composition(tuple(parts), round(error, 4))


def _cells(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint16], int]:
    """Sum squares of `side` pixels, so that the shorter side has about `CELLS`: height x width x 3, and `side`."""
    side = max(1, round(min(pixels.shape[:2]) / CELLS))
    height, width = pixels.shape[0] // side, pixels.shape[1] // side
    sums = np.zeros((height, width, 3), np.uint16)
    for row in range(side):
        for column in range(side):
            sums += pixels[row : height * side : side, column : width * side : side]
    return sums, side


def _distance(lab: Floats, anchor: Floats) -> Floats:
    """Return each cell's squared distance from a colour in standard deviations, at most `FAR`."""
    light = np.maximum(lab[..., 0] / anchor[0], 1e-3)
    across = (lab[..., 1] - light * anchor[1]) ** 2 + (lab[..., 2] - light * anchor[2]) ** 2
    along = np.log(light) / np.float32(LIGHT_SPREAD)
    return np.asarray(np.minimum(along**2 + across / np.float32(CHROMA_SPREAD**2), np.float32(FAR)))


def _faces(lightness: Floats, distance: Floats) -> NDArray[np.bool_]:
    """Return True where a granule shows and False in the binder between granules."""
    gap = lightness < GAP_DEPTH * _closed(lightness, GAP_WINDOW)
    gap &= distance > PLAUSIBLE
    gap |= lightness < GAP_DEPTH * _closed(lightness, SLIVER_WINDOW)
    return np.asarray(~gap)


def _nearest(distances: Sequence[Floats], face: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return for each cell the index of the colour that is nearest in its neighbourhood, or their number for `other`."""
    weight = face.astype(np.float32)
    # Every window around a face holds one, so the bound only keeps windows of pure binder from dividing by zero.
    around = np.maximum(_over(weight, NEIGHBORHOOD, np.add), np.float32(1))
    means = [_over(distance * weight, NEIGHBORHOOD, np.add) / around for distance in distances]
    return np.asarray(np.stack([*means, np.full_like(weight, OTHER)]).argmin(axis=0))


def _closed(values: Floats, window: int) -> Floats:
    """Return the grey closing: dark structures narrower than `window` take the level of what surrounds them."""
    return _over(_over(values, window, np.maximum), window, np.minimum)


def _over(values: Floats, window: int, combine: np.ufunc) -> Floats:
    """Combine the square `window` around each cell; beyond an edge the edge repeats. Five times as fast as scipy's filters."""
    reach = window // 2
    for axis in (0, 1):
        width = [(reach, reach) if axis == padded else (0, 0) for padded in (0, 1)]
        wide = np.moveaxis(np.pad(values, width, mode="edge"), axis, 0)
        shifted = (wide[start : start + values.shape[axis]] for start in range(window))
        values = np.moveaxis(reduce(combine, shifted), 0, axis)
    return values


def _difference(color: Color, srgb: Floats) -> float | None:
    """Return the CIEDE2000 from a colour's swatch to the median of the cells (count x 3) that were found to be it."""
    if not len(srgb):
        return None
    swatch, seen = srgb_to_cielab(np.array([color.srgb, np.median(srgb, axis=0)], np.float64))
    return round(float(ciede2000(swatch, seen)), 2)
