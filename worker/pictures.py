"""The pictures that an order gets: the tile or its views, and the legend."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from shared.jobs import RenderSpec
from worker.appraisal import Appraisal
from worker.legend import draw_legend
from worker.views import view_floor


def pictures_of(tile: NDArray[np.uint8], spec: RenderSpec, appraisal: Appraisal) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield what is to be stored, in order: the part of its name that tells it from the others, and its sRGB pixels.

    `tile` (height x width x 3) is what was drawn; from straight above it is its own picture, which needs no such part. An
    order whose colours were not measured gets no legend.
    """
    for angle in spec.angles:
        yield (f"{angle}deg", view_floor(tile, angle, grout=spec.grout)) if angle else ("", tile)
    if spec.legend and appraisal.composition is not None:
        yield "legend", draw_legend(appraisal.composition.parts)
