"""Draws orders for the colour benchmarks with the worker's own pipeline, and makes up the orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shared.manifest import Manifest
from shared.mix import format_share
from shared.palette import Color
from shared.settings import Settings
from worker.composition import Composition, measure_composition
from worker.pipeline import Pipeline, load_pipeline

Mix = Sequence[tuple[Color, float]]

HELD_OUT_SEED = 880_001
"""No training uses this seed or those after it."""


@dataclass(frozen=True)
class Studio:
    """One model, loaded when the first picture is wanted."""

    manifest: Manifest
    threads: int

    @cached_property
    def pipeline(self) -> Pipeline:
        """The model, warm."""
        return load_pipeline(self.manifest, Settings(torch_threads=self.threads))

    def draw(self, mix: Mix, seed: int, *, strength: float | None, seamless: bool = False) -> NDArray[np.uint8]:
        """Draw a mix in percent: from the words alone, or guided at a strength."""
        spec = replace(self.manifest.plain_spec(self.manifest.prompt.fill(mix_text(mix)), seed), seamless=seamless)
        if strength is not None:
            spec = replace(spec, strength=strength, painted=tuple((color.hex, share) for color, share in mix))
        return self.pipeline.render(spec, lambda step, steps: None).pixels

    def measure(self, pixels: NDArray[np.uint8], mix: Mix) -> Composition:
        """Measure a picture against its mix, with the whole palette as rivals, as a worker does."""
        return measure_composition(pixels, mix, rivals=self.manifest.colors.colors)

    def read(self, text: str) -> list[tuple[Color, float]]:
        """Turn `50% red, 50% black` into colours and percents; every name must be in the palette."""
        mix = []
        for part in text.split(", "):
            share, name = part.split("% ")
            color = self.manifest.colors.find(name)
            if color is None:
                raise ValueError(f"{name!r} is no colour of the palette")
            mix.append((color, float(share)))
        return mix

    def mixes(self, count: int) -> list[list[tuple[Color, float]]]:
        """Return mixes of 1 to 5 colours in whole percents. One in five is a pair of 1 and 99; all colours are equally likely.

        A longer list begins with the shorter one.
        """
        rng = np.random.default_rng(HELD_OUT_SEED)
        return [_random_mix(rng, self.manifest.colors.colors, is_extreme=number % 5 == 0) for number in range(count)]


def _random_mix(rng: np.random.Generator, colors: Sequence[Color], *, is_extreme: bool) -> list[tuple[Color, float]]:
    number = 2 if is_extreme else int(rng.integers(1, 6))
    chosen = [colors[index] for index in rng.choice(len(colors), number, replace=False)]
    if is_extreme:
        return list(zip(chosen, (99.0, 1.0), strict=True))
    cuts = np.sort(rng.choice(np.arange(1, 100), number - 1, replace=False))
    shares = np.diff(np.concatenate([[0], cuts, [100]]))
    return [(color, float(share)) for color, share in zip(chosen, shares, strict=True)]


def mix_text(mix: Mix) -> str:
    """Write a mix as its prompt says it."""
    return ", ".join(f"{format_share(share)}% {color.name}" for color, share in mix)
