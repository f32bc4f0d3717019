"""What a job's finished pixels are found to be: colours, texture, edges. Information, never a reason to fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.jobs import Job
from shared.manifest import Manifest
from shared.palette import Color
from worker.composition import Composition, measure_composition
from worker.tile_score import seam_score, tile_score

log = logging.getLogger(__name__)

Measured = TypeVar("Measured")


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What was measured; None where it makes no sense (no mix, no seamless tile) or could not be."""

    composition: Composition | None
    tile_score: float | None
    seam_score: float | None

    @property
    def parts(self) -> list[dict[str, Any]] | None:
        """The composition as the record keeps it."""
        return [asdict(part) for part in self.composition.parts] if self.composition else None

    @property
    def color_error(self) -> float | None:
        """Total variation between the ordered and the measured shares, 0 to 1."""
        return self.composition.color_error if self.composition else None


def appraise(job: Job, pixels: NDArray[np.uint8], manifest: Manifest) -> Appraisal:
    """Measure a picture of a job (sRGB, height x width x 3)."""
    return Appraisal(
        compose(job, pixels, manifest),
        _try(lambda: tile_score(pixels), job),
        _try(lambda: seam_score(pixels), job) if job.spec.render.seamless else None,
    )


def compose(job: Job, pixels: NDArray[np.uint8], manifest: Manifest) -> Composition | None:
    """Measure the shares of the ordered colours; None when the order was not a mix of palette colours alone."""
    known = ordered_colors(job, manifest)
    if not known:
        return None
    return _try(lambda: measure_composition(pixels, known, rivals=manifest.colors.colors), job)


def ordered_colors(job: Job, manifest: Manifest) -> list[tuple[Color, float]]:
    """Return the mix of a job in percent; nothing when a part of it is no colour of the palette."""
    ordered = [(manifest.colors.find(name), share) for name, share in job.spec.mix]
    known = [(color, share) for color, share in ordered if color is not None]
    return known if len(known) == len(ordered) else []


def _try(measure: Callable[[], Measured], job: Job) -> Measured | None:
    try:
        return measure()
    except Exception:  # a measurement must never decide what becomes of a job
        log.exception("the picture of job %s could not be measured", job.id, extra={"job_id": job.id})
        return None
