"""Measures the finished checkpoint on mixes and seeds that training never saw: `python -m training.evaluate`.

Renders with the worker's own pipeline and prints one line a property. `--json` keeps every single figure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.manifest import Manifest, load_manifest
from shared.palette import Color, Palette, load_palette
from shared.settings import Settings
from training.architecture import MODELS
from training.mixes import draw_mix, mix_text, whole_percents
from training.texture import grid_excess, radial_spectrum, repetition, spectrum_distance
from worker.composition import measure_composition
from worker.painter import paint_tile
from worker.pipeline import Pipeline, load_pipeline

_HELD_OUT_SEED = 770_001
_TEXTURE_PICTURES = 12
_PAIRS = 6

WholeMix = list[tuple[Color, int]]


class Bench:
    """Renders mixes with one manifest's prompt and defaults."""

    def __init__(self, manifest: Manifest, threads: int) -> None:
        self.manifest = manifest
        self._threads = threads
        self.pipeline: Pipeline = load_pipeline(manifest, Settings(torch_threads=threads))

    def at_strength(self, strength: float) -> Bench:
        """Return a bench of the same model with the LoRA at another strength."""
        if self.manifest.lora is None:
            raise ValueError("the manifest names no LoRA")
        return Bench(
            self.manifest.model_copy(update={"lora": self.manifest.lora.model_copy(update={"strength": strength})}),
            self._threads,
        )

    def draw(self, mix: WholeMix, seed: int, *, trigger: bool = True, guided: bool = False) -> tuple[NDArray[np.uint8], float]:
        """Return the picture of a mix (percent), drawn from its words alone or `guided`, and the seconds it took."""
        ordered = mix_text([(color, percent / 100) for color, percent in mix])
        prompt = self.manifest.prompt.fill(ordered)
        if not trigger:
            prompt = prompt.removeprefix(self.manifest.prompt.trigger).removeprefix(", ")
        spec = self.manifest.plain_spec(prompt, seed)
        if guided:
            painted = tuple((color.hex, float(percent)) for color, percent in mix)
            spec = replace(spec, strength=self.manifest.render.strength, painted=painted)
        rendered = self.pipeline.render(spec, lambda _step, _steps: None)
        return rendered.pixels, rendered.duration_s


def held_out_mixes(count: int, palette: Palette) -> list[WholeMix]:
    """Return mixes of 1 to 4 colours in steps of 5 %, from a seed that training does not use."""
    rng = np.random.default_rng(_HELD_OUT_SEED)
    return [whole_percents(draw_mix(rng, palette, most=4, least_share=0.05)) for _ in range(count)]


def distance(pixels: NDArray[np.uint8], mix: WholeMix) -> float:
    """Return the total-variation distance between ordered and measured shares, 0 to 1; what was not ordered counts too."""
    parts = measure_composition(pixels, mix).parts
    return 0.5 * sum(abs(part.measured - part.ordered) for part in parts) / 100


def measure_mixes(bench: Bench, mixes: Sequence[WholeMix]) -> dict[str, Any]:
    """Render every mix once with a seed of its own and return the distances and times."""
    distances, times = [], []
    for number, mix in enumerate(mixes):
        pixels, seconds = bench.draw(mix, _HELD_OUT_SEED + number)
        distances.append(distance(pixels, mix))
        times.append(seconds)
    return {
        "tv_mean": float(np.mean(distances)),
        "tv_p95": float(np.quantile(distances, 0.95)),
        "tv": distances,
        "seconds": times,
    }


def measure_solos(bench: Bench, colors: Sequence[Color]) -> dict[str, float]:
    """Return the CIEDE2000 from each colour's swatch to the median of its lit faces in a tile of that colour alone."""
    errors = {}
    for number, color in enumerate(colors):
        pixels, _ = bench.draw([(color, 100)], _HELD_OUT_SEED + 10_000 + number)
        error = measure_composition(pixels, [(color, 100.0)]).parts[0].ciede2000
        errors[color.name] = float("inf") if error is None else error
    return errors


def measure_texture(bench: Bench, mixes: Sequence[WholeMix]) -> dict[str, float]:
    """Compare spectra with painted tiles of the same mixes, and look for repeats and the decoder's grid."""
    drawn, painted, repeats, grids = [], [], [], []
    for number, mix in enumerate(mixes):
        pixels, _ = bench.draw(mix, _HELD_OUT_SEED + 20_000 + number)
        tile = paint_tile(mix, rng=np.random.default_rng(number), size_px=pixels.shape[0]).pixels
        drawn.append(radial_spectrum(pixels))
        painted.append(radial_spectrum(tile))
        repeats.append(repetition(pixels) - repetition(tile))
        grids.append(grid_excess(pixels))
    halves = spectrum_distance(np.mean(painted[::2], axis=0), np.mean(painted[1::2], axis=0))
    return {
        "spectrum_db": spectrum_distance(np.mean(drawn, axis=0), np.mean(painted, axis=0)),
        "spectrum_db_painted_halves": halves,
        "repetition_above_painted": float(np.max(repeats)),
        "grid_db": float(np.max(grids)),
    }


def measure_pair(one: Bench, other: Bench, mixes: Sequence[WholeMix], *, trigger: bool) -> dict[str, float]:
    """Return how far two ways of rendering the same seeds differ: mean absolute sRGB levels, and spectra in decibels."""
    levels, spectra = [], []
    for number, mix in enumerate(mixes):
        first, _ = one.draw(mix, _HELD_OUT_SEED + 30_000 + number)
        second, _ = other.draw(mix, _HELD_OUT_SEED + 30_000 + number, trigger=trigger)
        levels.append(float(np.abs(first.astype(int) - second).mean()))
        spectra.append(spectrum_distance(radial_spectrum(first), radial_spectrum(second)))
    return {"levels": float(np.mean(levels)), "spectrum_db": float(np.mean(spectra))}


def evaluate(manifest: Manifest, count: int, threads: int) -> dict[str, Any]:
    """Run every measurement and return all figures."""
    palette, bench = load_palette(), Bench(manifest, threads)
    mixes = held_out_mixes(count, palette)
    figures: dict[str, Any] = {"mixes": measure_mixes(bench, mixes)}
    figures["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["solos"] = measure_solos(bench, palette.colors)
    figures["texture"] = measure_texture(bench, mixes[:_TEXTURE_PICTURES])
    figures["same_seed"] = len({hashlib.sha256(bench.draw(mixes[0], 1)[0].tobytes()).hexdigest() for _ in range(2)}) == 1
    figures["no_trigger"] = measure_pair(bench, bench, mixes[:_PAIRS], trigger=False)
    figures["no_lora"] = measure_pair(bench, bench.at_strength(0.0), mixes[:_PAIRS], trigger=True)
    return figures


def report(figures: dict[str, Any]) -> str:
    """Return the table that a person reads."""
    mixes, solos, texture = figures["mixes"], figures["solos"], figures["texture"]
    worst = max(solos, key=lambda name: float(solos[name]))
    lines = [
        ("seconds an image, median", f"{statistics.median(mixes['seconds']):.2f}", "< 6"),
        ("peak memory, MB", f"{figures['peak_memory_mb']:.0f}", "< 1500"),
        (f"total variation over {len(mixes['tv'])} mixes, mean", f"{mixes['tv_mean']:.3f}", "<= 0.04"),
        ("total variation, 95th percentile", f"{mixes['tv_p95']:.3f}", "<= 0.10"),
        ("solo colours within CIEDE2000 10", f"{sum(e <= 10 for e in solos.values())} of {len(solos)}", "29 of 29"),
        (f"worst solo colour ({worst}), CIEDE2000", f"{solos[worst]:.1f}", "<= 10"),
        ("power spectrum against the painter, dB", f"{texture['spectrum_db']:.1f}", ""),
        ("the same, painted against painted, dB", f"{texture['spectrum_db_painted_halves']:.1f}", ""),
        ("autocorrelation above the painter's", f"{texture['repetition_above_painted']:.3f}", "about 0"),
        ("8 x 8 grid, dB above its surroundings", f"{texture['grid_db']:.1f}", "about 0"),
        (
            "LoRA 0 against 0.7, sRGB levels / dB",
            f"{figures['no_lora']['levels']:.1f} / {figures['no_lora']['spectrum_db']:.1f}",
            "> 0",
        ),
        (
            "without trigger, sRGB levels / dB",
            f"{figures['no_trigger']['levels']:.1f} / {figures['no_trigger']['spectrum_db']:.1f}",
            "> 0",
        ),
        ("same seed, same bytes", "yes" if figures["same_seed"] else "no", "yes"),
    ]
    return "\n".join(f"{name:<46} {value:>14}  {target}" for name, value, target in lines) + "\n"


def main() -> None:
    """Read the command line, measure, print the table."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description="Measure the finished checkpoint.")
    parser.add_argument("--manifest", type=Path, default=MODELS / "rubber-tile-mini.toml")
    parser.add_argument("--mixes", type=int, default=200, help="held-out mixes of 1 to 4 colours")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    parser.add_argument("--json", type=Path, help="write every figure here")
    arguments = parser.parse_args()
    figures = evaluate(load_manifest(arguments.manifest), arguments.mixes, arguments.threads)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(report(figures))


if __name__ == "__main__":
    main()
