"""Measures how well `worker.composition` finds the shares of painted tiles: `python -m bench.composition`.

Every pair of palette colours is painted once with the shares 25 and 75 and once with 75 and 25, at half size (512 x 512, the
same grain as a 1024 tile has after averaging), and measured. Then, for the time, a mix of five colours at 1024 x 1024; and,
for what was not ordered, every colour as a third of a mix whose other two were.

Prints a table and writes it as JSON to `bench/results/composition.json`. Takes about five minutes on one core.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from shared.palette import Color, Palette, load_palette
from worker.colorimetry import ciede2000, srgb_to_cielab
from worker.composition import measure_composition
from worker.painter import GAP, PaintedTile, paint_tile

RESULTS = Path(__file__).resolve().parent / "results" / "composition.json"
CLOSE = 8.0
SIZE_PX, GRANULE_PX = 512, 17.0


@dataclass(frozen=True, slots=True)
class PairError:
    """Two colours, their CIEDE2000, and the mean absolute error of their measured shares in percentage points."""

    first: str
    second: str
    difference: float
    error: float


def main() -> None:
    """Run all of it, print the table, and write the results."""
    palette = load_palette()
    pairs = [pair_error(first, second, palette) for first, second in combinations(palette.colors, 2)]
    apart = [pair.error for pair in pairs if pair.difference > CLOSE]
    close = sorted((pair for pair in pairs if pair.difference <= CLOSE), key=lambda pair: pair.difference)
    worst = sorted((pair for pair in pairs if pair.difference > CLOSE), key=lambda pair: -pair.error)[:10]
    found = [found_unordered(color, palette) for color in palette.colors]
    result = {
        "pairs_apart": len(apart),
        "error_mean": round(float(np.mean(apart)), 2),
        "error_p95": round(float(np.percentile(apart, 95)), 2),
        "close": [asdict(pair) for pair in close],
        "worst": [asdict(pair) for pair in worst],
        "unordered_found": round(float(np.mean(found)), 3),
        "duration_ms": round(1000 * duration_s(palette), 1),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}",
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(
        f"{len(apart)} pairs with CIEDE2000 > {CLOSE:g}: mean absolute error {result['error_mean']} points, "
        f"95th percentile {result['error_p95']}\n"
        f"1024 x 1024, five colours, the whole palette as rivals: {result['duration_ms']} ms\n"
        f"of a third that was not ordered, found as other: {result['unordered_found']:.1%}\n"
    )
    for title, some in (("closer pairs", close), ("worst of the others", worst)):
        sys.stdout.write(f"{title}:\n")
        for pair in some:
            sys.stdout.write(f"  {pair.first:12} {pair.second:12} CIEDE2000 {pair.difference:5.1f}  error {pair.error:5.2f}\n")


def pair_error(first: Color, second: Color, palette: Palette) -> PairError:
    """Paint and measure two colours in both proportions."""
    swatches = srgb_to_cielab(np.array([first.srgb, second.srgb], np.float64))
    errors = []
    for seed, share in enumerate((25.0, 75.0)):
        ordered = [(first, share), (second, 100 - share)]
        tile = _paint(ordered, seed)
        measured = measure_composition(tile.pixels, ordered, rivals=palette.colors).parts
        errors += [abs(part.measured - true) for part, true in zip(measured, _shares(tile, 2), strict=False)]
    difference = float(ciede2000(swatches[0], swatches[1]))
    return PairError(first.name, second.name, round(difference, 1), round(float(np.mean(errors)), 2))


def found_unordered(color: Color, palette: Palette) -> float:
    """Paint a colour beside two others that it cannot be mistaken for, order only those, and return how much was `other`."""
    lab = srgb_to_cielab(np.array([other.srgb for other in palette.colors], np.float64))
    apart = ciede2000(lab, srgb_to_cielab(np.array(color.srgb, np.float64))[None])
    choices = [other for other, difference in zip(palette.colors, apart, strict=True) if difference > CLOSE]
    rng = np.random.default_rng(palette.colors.index(color))
    ordered = [(choices[index], 50.0) for index in rng.choice(len(choices), 2, replace=False)]
    tile = _paint([*ordered, (color, 50.0)], 0)
    return measure_composition(tile.pixels, ordered, rivals=palette.colors).other / _shares(tile, 3)[2]


def duration_s(palette: Palette) -> float:
    """Return the least of ten times that a 1024 x 1024 tile of five colours takes."""
    ordered = [(color, 20.0) for color in palette.colors[:25:5]]
    tile = paint_tile(ordered, rng=np.random.default_rng(0))
    times_s = []
    for _ in range(10):
        started_s = time.perf_counter()
        measure_composition(tile.pixels, ordered, rivals=palette.colors)
        times_s.append(time.perf_counter() - started_s)
    return min(times_s)


def _paint(ordered: list[tuple[Color, float]], seed: int) -> PaintedTile:
    return paint_tile(ordered, rng=np.random.default_rng(seed), size_px=SIZE_PX, granule_px=GRANULE_PX)


def _shares(tile: PaintedTile, count: int) -> list[float]:
    areas = np.bincount(tile.labels[tile.labels != GAP], minlength=count)
    return [100 * float(area) / int(areas.sum()) for area in areas]


if __name__ == "__main__":
    main()
