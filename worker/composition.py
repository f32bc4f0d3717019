"""Measures what a finished picture holds: the share of each ordered colour, and of anything else.

Works on about 512 x 512 cells (the mean of 2 x 2 pixels of a 1024 picture) in OKLab, in three steps:

1. How far is each cell from each colour? Relief changes how much light a granule sends back, which moves its colour along
   the line from black through the swatch. So the distance across that line (another chroma) weighs much, the distance along
   it (more or less light) little; their sum is capped, so that a highlight or an edge cannot outvote its surroundings.
2. Which cells are binder? Gaps are thin and dark, granules are thick: a cell is a gap if it is darker than the picture after
   a grey closing, which fills whatever is thinner than its window, and if no ordered colour explains it. So a thin sliver of
   ordered black stays black, and a gap beside it does not become black. Gaps belong to no share.
3. Distances are averaged over the faces around each cell, and the nearest colour has it. A cell that is far from every
   ordered colour is `other`, and so is one that another colour of the palette explains much better.

A colour that was not ordered can still hide behind an ordered one that is nearly the same, or the same in less light; then
`ciede2000` of that part says how far off it looks. `python -m bench.composition` measures the error of all this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from shared.mix import SUM_TOLERANCE
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
GLARE = 250
"""Where red, green and blue are all above this it is a white background or a highlight, whatever was ordered."""
OTHER = 16.0
"""A cell is `other` beyond this mean distance: a chroma 0.06 off, or less than 0.59 or more than 1.7 times the L."""
RIVAL_FLOOR, RIVAL_MARGIN = 4.0, 3.0
"""It is `other` from the floor on if a rival's distance times the margin is less."""
RIVAL_CIEDE2000_MIN = 8.0
"""A colour of the palette nearer than this to an ordered one is no rival of it: the two cannot be told apart reliably."""

GAP_WINDOW = 9
GAP_DEPTH = 0.85
"""A gap's L is less than this part of the closed picture's."""
PLAUSIBLE = 2.0
"""A cell nearer than this to an ordered colour is no gap."""
NEIGHBORHOOD = 7
SEEN_MIN = 0.001
"""Part of the cells below which a colour's own appearance is not judged."""


@dataclass(frozen=True, slots=True)
class ColorShare:
    """One line of the result: shares in percent, and the CIEDE2000 from the swatch to the colour's median in the picture.

    `color` is a caption, or "other", which has no swatch and is ordered at what the colours leave open of 100: 0, unless the
    mix holds words that are no palette colour. `srgb` is the swatch and `measured_srgb` the median, as `#RRGGBB`. The
    latter and `ciede2000` are None where too little of the colour was found to judge.
    """

    color: str
    ordered: float
    measured: float
    ciede2000: float | None = None
    srgb: str | None = None
    measured_srgb: str | None = None


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


def measure_composition(
    pixels: NDArray[np.uint8], ordered: Sequence[tuple[Color, float]], rivals: Sequence[Color] = ()
) -> Composition:
    """Measure a picture (sRGB, height x width x 3) against the colours that were ordered, at least one, in percent.

    `rivals` are the other colours a granule could have, usually the whole palette; ordered ones and their likes are left out.
    Any picture gets an answer: one of a single colour, of a few pixels, or of something else altogether.
    """
    sums, side = _cells(pixels)
    levels = np.linspace(0, 255, 255 * side**2 + 1, dtype=np.float32)
    lab = linear_to_oklab(to_linear(levels)[sums])
    wanted = [color for color, _ in ordered]
    glare = sums.min(axis=2) > GLARE * side**2
    distances = [np.where(glare, np.float32(FAR), _distance(lab, anchor)) for anchor in _anchors(wanted)]
    face = _faces(lab[..., 0], np.minimum.reduce(distances))
    means = _around(distances, face, NEIGHBORHOOD)
    means.append(_other(lab, face, _rivals(wanted, rivals)))
    nearest = np.where(face, np.stack(means).argmin(axis=0), -1)
    counts = np.bincount(nearest[face], minlength=len(ordered) + 1) / np.count_nonzero(face)
    parts = [
        ColorShare(
            color.name,
            float(share),
            round(100 * float(counts[index]), 2),
            *_seen(color, levels[sums[::2, ::2][nearest[::2, ::2] == index]] if counts[index] > SEEN_MIN else None),
        )
        for index, (color, share) in enumerate(ordered)
    ]
    left_open = 100 - sum(part.ordered for part in parts)
    parts.append(ColorShare("other", left_open if left_open > SUM_TOLERANCE else 0.0, round(100 * float(counts[-1]), 2)))
    error = sum(abs(part.ordered - part.measured) for part in parts) / 200
    return Composition(tuple(parts), round(error, 4))


def cells_lightness(pixels: NDArray[np.uint8]) -> Floats:
    """Return the OKLab L, 0 to 1, of a picture's cells."""
    sums, side = _cells(pixels)
    levels = np.linspace(0, 255, 255 * side**2 + 1, dtype=np.float32)
    return linear_to_oklab(to_linear(levels)[sums])[..., 0]


def find_gaps(lightness: Floats, bright: Floats) -> NDArray[np.bool_]:
    """Return where L is that of a thin dark line, whatever its colour; `bright` is the closed L."""
    return np.asarray(lightness < GAP_DEPTH * bright)


def _cells(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint16], int]:
    """Sum squares of `side` pixels, 1 to 16, so that the shorter side has about `CELLS`: height x width x 3, and `side`."""
    side = min(max(1, round(min(pixels.shape[:2]) / CELLS)), 16)
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
    """Return True where a granule shows and False in the binder, from L and the distance to the nearest ordered colour."""
    return np.asarray(~(find_gaps(lightness, closed(lightness)) & (distance > PLAUSIBLE)))


def _around(distances: Iterable[Floats], face: NDArray[np.bool_], window: int) -> list[Floats]:
    """Return for each distance its mean over the faces in the square `window` around each cell."""
    weight = face.astype(np.float32)
    # A window around a face holds one; the bound only keeps windows of pure binder from dividing by zero.
    count = np.maximum(_over(weight, window, np.add), np.float32(1))
    return [np.asarray(_over(distance * weight, window, np.add) / count, np.float32) for distance in distances]


def _other(lab: Floats, face: NDArray[np.bool_], rivals: Sequence[Color]) -> Floats:
    """Return the distance beyond which each cell is `other`: `OTHER`, or less where a rival is near.

    Rivals are looked at on every second cell, which is enough to see granules and makes the whole palette cheap.
    """
    limit = np.full(face.shape, OTHER, np.float32)
    if rivals:
        some, seen = np.ascontiguousarray(lab[::2, ::2]), face[::2, ::2]
        distances = (_distance(some, anchor) for anchor in _anchors(rivals))
        near = reduce(np.minimum, _around(distances, seen, NEIGHBORHOOD // 2))
        rival = np.maximum(RIVAL_FLOOR, RIVAL_MARGIN * near).repeat(2, axis=0).repeat(2, axis=1)
        limit = np.minimum(limit, rival[: face.shape[0], : face.shape[1]])
    return limit


def _rivals(wanted: Sequence[Color], palette: Sequence[Color]) -> list[Color]:
    """Return the colours that cannot be mistaken for a wanted one."""
    swatches = srgb_to_cielab(np.array([color.srgb for color in wanted], np.float64))
    others = srgb_to_cielab(np.array([color.srgb for color in palette], np.float64).reshape(-1, 3))
    apart = ciede2000(others[:, None], swatches[None, :]).min(axis=1)
    return [color for color, difference in zip(palette, apart, strict=True) if difference > RIVAL_CIEDE2000_MIN]


def _anchors(colors: Sequence[Color]) -> Floats:
    """Return the swatches in OKLab, count x 3."""
    return linear_to_oklab(to_linear(np.array([color.srgb for color in colors], np.float32)))


def closed(values: Floats) -> Floats:
    """Return the grey closing: dark structures narrower than `GAP_WINDOW` take the level of what surrounds them."""
    return _over(_over(values, GAP_WINDOW, np.maximum), GAP_WINDOW, np.minimum)


def _over(values: Floats, window: int, combine: np.ufunc) -> Floats:
    """Combine the square `window` around each cell; beyond an edge the edge repeats. Five times as fast as scipy's filters."""
    reach = window // 2
    for axis in (0, 1):
        width = [(reach, reach) if axis == padded else (0, 0) for padded in (0, 1)]
        wide = np.moveaxis(np.pad(values, width, mode="edge"), axis, 0)
        shifted = (wide[start : start + values.shape[axis]] for start in range(window))
        values = np.moveaxis(reduce(combine, shifted), 0, axis)
    return values


def _seen(color: Color, srgb: Floats | None) -> tuple[float | None, str, str | None]:
    """Return CIEDE2000, swatch and median of the cells (count x 3) that were found to be a colour."""
    if srgb is None or not len(srgb):
        return None, color.hex, None
    median = np.median(srgb, axis=0)
    swatch, seen = srgb_to_cielab(np.array([color.srgb, median], np.float64))
    return round(float(ciede2000(swatch, seen)), 2), color.hex, "#{:02X}{:02X}{:02X}".format(*map(round, median.tolist()))
