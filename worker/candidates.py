"""Draws several pictures of one order, if it asks for them, and keeps the one with the truest colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.jobs import Job
from worker.appraisal import compose
from worker.progress import Progress
from worker.station import Station

GOOD_ENOUGH = 0.02
"""A color error that is not worth another picture: the measurement itself is no surer."""

SEEDS = 2**32


@dataclass(frozen=True, slots=True, eq=False)
class Best:
    """The picture that was kept (uint8, height x width x 3), the seconds that all `candidates` took, and its provenance."""

    pixels: NDArray[np.uint8]
    duration_s: float
    provenance: dict[str, Any]
    candidates: int


def draw_best(job: Job, station: Station, progress: Progress) -> Best:
    """Draw up to `num_candidates` pictures with seeds that follow each other, and return the one with the least color error.

    No more are drawn after one that is good enough. The kept one's seed stands in its provenance: ordered alone with that
    seed, it is the same picture. Raises what the pipeline and `progress` raise.
    """
    spec = job.spec.render
    if spec.num_candidates == 1:
        rendered = station.pipeline.render(spec, progress)
        return Best(rendered.pixels, rendered.duration_s, station.pipeline.provenance, 1)
    best, least, duration_s, drawn = None, np.inf, 0.0, 0
    for drawn in range(1, spec.num_candidates + 1):
        seed = (spec.seed + drawn - 1) % SEEDS
        one = replace(spec, seed=seed, num_candidates=1)
        rendered = station.pipeline.render(one, _shifted(progress, drawn - 1, spec.num_candidates))
        duration_s += rendered.duration_s
        measured = compose(job, rendered.pixels, station.manifest)
        error = measured.color_error if measured else 1.0
        progress.note(f"Candidate {drawn} of {spec.num_candidates}, seed {seed}: color error {error:.4f}")
        if best is None or error < least:
            best, least = Best(rendered.pixels, 0.0, station.pipeline.provenance | {"seed": seed}, 1), error
        if least <= GOOD_ENOUGH:
            break
    if best is None:
        raise ValueError("an order has at least one candidate")
    progress.note(f"Kept seed {best.provenance['seed']}: color error {least:.4f}")
    return replace(best, duration_s=duration_s, candidates=drawn)


def _shifted(progress: Progress, before: int, candidates: int) -> Callable[[int, int], None]:
    """Count the steps of one candidate on from those before it."""
    return lambda step, steps: progress(before * steps + step, candidates * steps)
