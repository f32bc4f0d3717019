"""Paints tiles of pressed rubber granules: no model, only numpy and scipy.

The plan is cut first (`cut_granules`), then given a relief and lit (`light_granules`), then coloured (`color_granules`);
`paint_tile` does all three. Lengths are in pixels. Distances to a granule's edge come from a jittered, weighted Voronoi
cut (Worley, "A cellular texture basis function", SIGGRAPH 1996) whose plane is warped by smooth noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from shared.errors import InputInvalid
from shared.palette import Color

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

GAP = -1

_BINDER_LINEAR = np.array([0.0052, 0.0050, 0.0048], np.float32)
_LUT_STEPS = 4095


@dataclass(frozen=True, slots=True)
class Light:
    """One lamp: `azimuth_deg` counter-clockwise from the right edge, `elevation_deg` above the tile, 10 to 80."""

    azimuth_deg: float = 128.0
    elevation_deg: float = 42.0

    def direction(self) -> tuple[float, float, float]:
        """Return the unit vector from the tile to the lamp: x to the right, y downwards, z towards the viewer."""
        azimuth, elevation = math.radians(self.azimuth_deg), math.radians(self.elevation_deg)
        flat = math.cos(elevation)
        return flat * math.cos(azimuth), -flat * math.sin(azimuth), math.sin(elevation)


@dataclass(frozen=True, slots=True)
class Granules:
    """A cut plane. Arrays are size x size.

    `ids` names each pixel's granule, 0 to `count` - 1; `edge_px` is the distance to its border; `offset_x_px` and
    `offset_y_px` lead from its seed to the pixel. `periodic` says that opposite edges continue each other.
    """

    ids: Ints
    edge_px: Floats
    offset_x_px: Floats
    offset_y_px: Floats
    count: int
    granule_px: float
    periodic: bool


@dataclass(frozen=True, slots=True)
class Lighting:
    """What light does to the cut, each size x size.

    `shade` multiplies linear reflectance and has median 1 on faces; `gloss` is added; `gap` is 1 in the binder, 0 on faces.
    """

    shade: Floats
    gloss: Floats
    gap: Floats

    @property
    def face(self) -> NDArray[np.bool_]:
        """True where a granule shows, False in the binder between granules."""
        return np.asarray(self.gap < 0.5)


@dataclass(frozen=True, slots=True)
class PaintedTile:
    """A tile: `pixels` uint8 sRGB, size x size x 3; `labels` int8, index into the ordered shares, or GAP in the binder."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int8]


def paint_tile(
    shares: Sequence[tuple[Color, float]],
    *,
    rng: np.random.Generator,
    size_px: int = 1024,
    granule_px: float = 34.0,
    light: Light | None = None,
    seamless: bool = False,
) -> PaintedTile:
    """Paint one tile seen from above.

    `shares` are colours with positive weights of any sum; each colour's part of the visible granule area equals its part of
    the sum to within one small granule. `granule_px` is the mean width of a granule, 6 to a quarter of `size_px`.
    A `seamless` tile continues itself at all four edges. The same `rng` state paints the same bytes.

    Raises:
        InputInvalid: no colour, a weight that is not a positive number, or a size out of range; `field` names it.
    """
    if size_px < 32:
        raise InputInvalid(f"expected a tile of at least 32 pixels, got {size_px}", field="size_px")
    granules = cut_granules(size_px, granule_px, rng, periodic=seamless)
    lighting = light_granules(granules, light or Light(), rng)
    color_of = share_out(granules, lighting.face, [share for _, share in shares], rng)
    pixels = color_granules(granules, lighting, [color.srgb for color, _ in shares], color_of, rng)
    labels = np.where(lighting.face, color_of[granules.ids], GAP).astype(np.int8)
    return PaintedTile(pixels, labels)


def cut_granules(
    size_px: int,
    granule_px: float,
    rng: np.random.Generator,
    *,
    periodic: bool = False,
    warp: float = 1.0,
    stretch: float = 0.28,
) -> Granules:
    """Cut a square into irregular granules of mean width `granule_px`.

    `warp` scales how far the edges are bent (0 leaves straight cuts); `stretch` is the spread of the granules' elongation.
    """
    if not 6 <= granule_px <= size_px / 4:
        raise InputInvalid(f"expected granules of 6 to {size_px / 4:g} pixels, got {granule_px:g}", field="granule_px")
    inner = max(4, round(size_px / granule_px))
    cell_px = size_px / inner
    margin = 0 if periodic else 2
    cells = inner + 2 * margin
    seed_x, seed_y = (rng.uniform(0.02, 0.98, (cells, cells)).astype(np.float32) for _ in range(2))
    reach = rng.normal(0.0, 0.16, cells * cells).astype(np.float32)
    metric = _metrics(cells * cells, stretch, rng)
    axis = np.arange(size_px, dtype=np.float32) / cell_px + margin
    bend_x, bend_y = (warp * _warp(size_px, granule_px, rng) for _ in range(2))
    x, y = axis[None, :] + bend_x, axis[:, None] + bend_y
    return _nearest(x, y, seed_x, seed_y, reach, metric, cell_px, granule_px, periodic)


def _metrics(count: int, stretch: float, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Return (xx, xy, yy) of one symmetric positive matrix of determinant 1 for each granule: its own idea of distance."""
    angle = rng.uniform(0, math.pi, count)
    ratio = np.exp(rng.normal(0, stretch, count))
    cos, sin = np.cos(angle), np.sin(angle)
    parts = (cos**2 * ratio + sin**2 / ratio, cos * sin * (ratio - 1 / ratio), sin**2 * ratio + cos**2 / ratio)
    xx, xy, yy = (part.astype(np.float32) for part in parts)
    return xx, xy, yy


def _warp(size_px: int, granule_px: float, rng: np.random.Generator) -> Floats:
    """Return one component of the plane's displacement, in cells: slow bends and a fine raggedness."""
    return 0.10 * smooth_noise(size_px, granule_px / 2.2, rng) + 0.028 * smooth_noise(size_px, granule_px / 9, rng)


def _nearest(
    x: Floats,
    y: Floats,
    seed_x: Floats,
    seed_y: Floats,
    reach: Floats,
    metric: tuple[Floats, Floats, Floats],
    cell_px: float,
    granule_px: float,
    periodic: bool,
) -> Granules:
    """Find each pixel's nearest and second nearest seed among the nine cells around it."""
    cells = seed_x.shape[0]
    column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    first = np.full(x.shape, np.inf, np.float32)
    second = first.copy()
    ids = np.zeros(x.shape, np.int32)
    offset_x, offset_y = np.zeros_like(first), np.zeros_like(first)
    for step_y in (-1, 0, 1):
        for step_x in (-1, 0, 1):
            candidate_column, candidate_row = column + step_x, row + step_y
            index = (candidate_row % cells) * cells + candidate_column % cells
            dx = x - candidate_column - seed_x.ravel()[index]
            dy = y - candidate_row - seed_y.ravel()[index]
            xx, xy, yy = (part[index] for part in metric)
            distance = np.sqrt(xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy) - reach[index]
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            first = np.where(nearer, distance, first)
            ids = np.where(nearer, index, ids)
            offset_x, offset_y = np.where(nearer, dx, offset_x), np.where(nearer, dy, offset_y)
    names, dense = np.unique(ids, return_inverse=True)
    return Granules(
        ids=dense.reshape(ids.shape).astype(np.int32),
        edge_px=(second - first) * np.float32(cell_px / 2),
        offset_x_px=offset_x * np.float32(cell_px),
        offset_y_px=offset_y * np.float32(cell_px),
        count=len(names),
        granule_px=granule_px,
        periodic=periodic,
    )


def light_granules(granules: Granules, light: Light, rng: np.random.Generator) -> Lighting:
    """Give every granule a rounded, slightly tilted, rough face and light it: diffuse, cast shadow, occlusion, gloss."""
    height = _relief(granules, rng)
    x, y, z = light.direction()
    slope_y, slope_x = _gradient(height, granules.periodic)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    diffuse = np.maximum((z - slope_x * x - slope_y * y) / (length * z), 0)
    half_x, half_y, half_z = np.array([x, y, z + 1]) / math.sqrt(x * x + y * y + (z + 1) ** 2)
    facing = np.maximum((half_z - slope_x * half_x - slope_y * half_y) / length, 0)
    shine = rng.gamma(2.0, 0.5, granules.count).astype(np.float32)[granules.ids]
    gloss = 0.035 * shine * facing**36
    shadow = _cast_shadow(height, light, granules)
    near = granules.edge_px / granules.granule_px
    occlusion = 1 - 0.6 * np.exp(-near / 0.06)
    shade = (0.45 + 0.55 * diffuse * (1 - 0.65 * shadow)) * occlusion
    opening = 0.6 + 0.4 * _smooth_step(0.5 + 0.5 * smooth_noise(granules.ids.shape[0], 0.7 * granules.granule_px, rng))
    gap = 1 - _smooth_step(near / (0.06 * opening))
    shade /= np.median(shade[gap < 0.5])
    return Lighting(shade=shade.astype(np.float32), gloss=(gloss * (1 - shadow)).astype(np.float32), gap=gap.astype(np.float32))


def _relief(granules: Granules, rng: np.random.Generator) -> Floats:
    """Return the height of the surface in pixels."""
    size_px, granule_px = granules.ids.shape[0], granules.granule_px
    rise, tilt_x, tilt_y = (
        values.astype(np.float32)[granules.ids]
        for values in (
            rng.uniform(0.55, 1.45, granules.count),
            rng.uniform(-0.17, 0.17, granules.count),
            rng.uniform(-0.17, 0.17, granules.count),
        )
    )
    rim = 1 - np.clip(granules.edge_px / (0.26 * granule_px), 0, 1)
    dome = 1 - rim**2.2
    reach_px = 0.6 * granule_px
    lean = tilt_x * np.clip(granules.offset_x_px, -reach_px, reach_px) + tilt_y * np.clip(
        granules.offset_y_px, -reach_px, reach_px
    )
    face = rise * 0.15 * granule_px + lean
    lumps = 0.016 * granule_px * smooth_noise(size_px, granule_px / 5, rng)
    grain = 0.10 * smooth_noise(size_px, max(0.9, granule_px / 26), rng)
    return np.asarray(dome * face + lumps + grain, np.float32)


def _cast_shadow(height: Floats, light: Light, granules: Granules) -> Floats:
    """Return 0 to 1: how much of the lamp is hidden behind what stands between it and the pixel."""
    x, y, _ = light.direction()
    norm = math.hypot(x, y)
    climb = math.tan(math.radians(light.elevation_deg))
    hidden = np.zeros_like(height)
    for part in (0.05, 0.10, 0.16, 0.24):
        reach_px = part * granules.granule_px
        shift = (-round(reach_px * y / norm), -round(reach_px * x / norm))
        blocker = _shifted(height, shift, granules.periodic)
        hidden = np.maximum(hidden, blocker - height - reach_px * climb)
    return np.asarray(_smooth_step(hidden / (0.07 * granules.granule_px)), np.float32)


def share_out(granules: Granules, face: NDArray[np.bool_], weights: Sequence[float], rng: np.random.Generator) -> Ints:
    """Choose a colour index for every granule so that the visible areas are in the proportion of `weights`.

    Big granules are dealt first, at random in proportion to the area still missing of each colour; the smallest come last
    and settle the difference.
    """
    wanted = np.asarray(weights, np.float64)
    if not len(wanted) or not np.all(np.isfinite(wanted)) or np.any(wanted <= 0):
        raise InputInvalid("expected at least one colour, each with a positive share", field="shares")
    area = np.bincount(granules.ids.ravel(), weights=face.ravel(), minlength=granules.count)
    missing = wanted / wanted.sum() * area.sum()
    color_of = np.zeros(granules.count, np.int32)
    by_area = np.argsort(-area * rng.uniform(0.8, 1.25, granules.count))
    settling = len(by_area) - 8 * len(wanted)
    draws = rng.random(granules.count)
    for turn, granule in enumerate(by_area):
        open_areas = np.maximum(missing, 0)
        if turn < settling and open_areas.sum() > 0:
            edges = np.cumsum(open_areas)
            choice = min(int(np.searchsorted(edges, draws[turn] * edges[-1], side="right")), len(wanted) - 1)
        else:
            choice = int(np.argmax(missing))
        color_of[granule] = choice
        missing[choice] -= area[granule]
    return color_of


def color_granules(
    granules: Granules,
    lighting: Lighting,
    srgb: Sequence[tuple[int, int, int]],
    color_of: Ints,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Return the picture: granule `i` has the colour `srgb[color_of[i]]`, with a tone of its own and a fine speckle."""
    size_px = granules.ids.shape[0]
    albedo = to_linear(np.asarray(srgb, np.float32))[color_of]
    tone = np.exp(rng.normal(0, 0.07, (granules.count, 1)) + rng.normal(0, 0.014, (granules.count, 3))).astype(np.float32)
    speckle = 1 + 0.05 * smooth_noise(size_px, max(0.8, granules.granule_px / 30), rng)
    lit = (lighting.shade * speckle * (1 - 0.86 * lighting.gap))[..., None] * (albedo * tone)[granules.ids]
    lit += lighting.gap[..., None] * _BINDER_LINEAR * lighting.shade[..., None]
    lit += (lighting.gloss * (1 - lighting.gap))[..., None]
    return to_srgb(lit)


def to_linear(srgb: Floats) -> Floats:
    """Turn sRGB values of 0 to 255 into linear light of 0 to 1 (IEC 61966-2-1)."""
    value = srgb / np.float32(255)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(linear: Floats) -> NDArray[np.uint8]:
    """Turn linear light of 0 to 1, clipped, into sRGB bytes (IEC 61966-2-1)."""
    level = np.arange(_LUT_STEPS + 1) / _LUT_STEPS
    curve = np.where(level <= 0.0031308, 12.92 * level, 1.055 * level ** (1 / 2.4) - 0.055)
    table = np.round(255 * curve).astype(np.uint8)
    return np.asarray(table[(np.clip(linear, 0, 1) * _LUT_STEPS + 0.5).astype(np.uint16)])


def smooth_noise(size_px: int, scale_px: float, rng: np.random.Generator) -> Floats:
    """Return periodic Gaussian noise of mean 0 and standard deviation 1 whose features are about `scale_px` wide."""
    spectrum = fft.rfft2(rng.standard_normal((size_px, size_px), np.float32))
    sigma = np.float32(scale_px / 2)
    rows = np.exp(-2 * (math.pi * sigma * fft.fftfreq(size_px)) ** 2).astype(np.float32)
    columns = np.exp(-2 * (math.pi * sigma * fft.rfftfreq(size_px)) ** 2).astype(np.float32)
    noise = fft.irfft2(spectrum * rows[:, None] * columns[None, :], s=(size_px, size_px))
    noise -= noise.mean()
    return np.asarray(noise / noise.std(), np.float32)


def _gradient(height: Floats, periodic: bool) -> tuple[Floats, Floats]:
    if not periodic:
        down, right = np.gradient(height)
        return np.asarray(down, np.float32), np.asarray(right, np.float32)
    down = (np.roll(height, -1, 0) - np.roll(height, 1, 0)) / 2
    right = (np.roll(height, -1, 1) - np.roll(height, 1, 1)) / 2
    return np.asarray(down, np.float32), np.asarray(right, np.float32)


def _shifted(height: Floats, shift: tuple[int, int], periodic: bool) -> Floats:
    """Return the height at the pixel `-shift` away; beyond an open edge, the height of the edge itself."""
    if periodic:
        return np.roll(height, shift, (0, 1))
    rows, columns = (np.clip(np.arange(n) - s, 0, n - 1) for n, s in zip(height.shape, shift, strict=True))
    return np.asarray(height[rows][:, columns])


def _smooth_step(value: Floats) -> Floats:
    clipped = np.clip(value, 0, 1)
    return np.asarray(clipped * clipped * (3 - 2 * clipped), np.float32)
