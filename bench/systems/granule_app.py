"""Granule's render worker with the stand-in model: `python -m worker.guardian --app bench.systems.granule_app`."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from bench.sleeper import Picture, Sleeper
from bench.systems.model import SIZE_PX, mark, sleep_s
from shared.jobs import RenderSpec
from shared.manifest import Manifest
from shared.settings import Settings, load_settings
from worker.assembly import make_worker

STEPS = 5


class SeededSleeper(Sleeper):
    """Draws the stand-in's picture of a seed in five steps."""

    def __init__(self) -> None:
        super().__init__(np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8), 0.0)

    def render(self, spec: RenderSpec, on_step: Callable[[int, int], None]) -> Picture:
        """Draw a picture. What `on_step` raises passes through."""
        began_ns = time.monotonic_ns()
        for step in range(1, STEPS + 1):
            time.sleep(sleep_s(spec.seed) / STEPS)
            on_step(step, STEPS)
        pixels = np.random.default_rng(spec.seed).integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
        mark(spec.seed, began_ns)
        return Picture(pixels, (time.monotonic_ns() - began_ns) / 1e9)


def load_sleeper(_manifest: Manifest, _settings: Settings) -> SeededSleeper:
    """What `make_worker` calls in the process that renders."""
    return SeededSleeper()


app = make_worker(load_settings(), load_sleeper)
