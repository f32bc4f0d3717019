"""Granule's render worker with the stand-in model: `python -m worker.guardian --app bench.systems.granule_app`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.systems.model import SIZE_PX, mark, sleep_s
from shared.jobs import RenderSpec
from shared.manifest import Manifest
from shared.settings import Settings, load_settings
from worker.assembly import make_worker
from worker.station import Pipeline

STEPS = 5


@dataclass(frozen=True, eq=False)
class Picture:
    """What a worker expects of its pipeline."""

    pixels: NDArray[np.uint8]
    duration_s: float


class SleepingPipeline(Pipeline):
    """Draws the stand-in's picture in five steps."""

    @property
    def provenance(self) -> dict[str, Any]:
        """There are no weights to tell of."""
        return {"device": "stand-in"}

    @property
    def memory(self) -> None:
        """There is no device."""

    def preview(self, row: int) -> NDArray[np.uint8]:
        """There is nothing to see yet."""
        return np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8)

    def render(self, spec: RenderSpec, on_step: Callable[[int, int], None]) -> Picture:
        """Draw a picture. What `on_step` raises passes through."""
        began_ns = time.monotonic_ns()
        for step in range(1, STEPS + 1):
            time.sleep(sleep_s(spec.seed) / STEPS)
            on_step(step, STEPS)
        pixels = np.random.default_rng(spec.seed).integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
        mark(spec.seed, began_ns)
        return Picture(pixels, (time.monotonic_ns() - began_ns) / 1e9)


def load_sleeper(_manifest: Manifest, _settings: Settings) -> SleepingPipeline:
    """What `make_worker` calls in the process that renders."""
    return SleepingPipeline()


app = make_worker(load_settings(), load_sleeper)
