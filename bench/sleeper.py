"""A model that sleeps instead of drawing, and then hands out the same picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.jobs import RenderSpec
from worker.station import Pipeline

STEPS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What the pipeline hands out."""

    pixels: NDArray[np.uint8]
    duration_s: float


class Sleeper(Pipeline):
    """A pipeline for the worker that takes `render_s` seconds for `pixels`, in equal naps, and no processor."""

    def __init__(self, pixels: NDArray[np.uint8], render_s: float) -> None:
        self._pixels = pixels
        self._nap_s = render_s / STEPS

    @property
    def provenance(self) -> dict[str, Any]:
        """What the record says of the picture."""
        return {"device": "sleeping"}

    @property
    def memory(self) -> None:
        """There is no device."""

    def preview(self, row: int) -> NDArray[np.uint8]:
        """What it will hand out."""
        return self._pixels

    def render(self, spec: RenderSpec, on_step: Callable[[int, int], None]) -> Picture:
        """Sleep until each step is due, so that naps which last too long do not add up, and report it."""
        began_s = time.monotonic()
        for step in range(1, STEPS + 1):
            time.sleep(max(0.0, began_s + step * self._nap_s - time.monotonic()))
            on_step(step, STEPS)
        return Picture(self._pixels, time.monotonic() - began_s)
