from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.jobs import Job, RenderSpec, Status
from shared.manifest import load_manifest
from shared.settings import REPOSITORY
from tests.contracts.jobs import new_spec
from worker.candidates import Best, draw_best
from worker.painter import paint_tile

MANIFEST = load_manifest(REPOSITORY / "models" / "rubber-tile-mini.toml")
ORDERED = [(color, 50.0) for color in MANIFEST.colors.colors if color.name in ("red", "black")]


@dataclass
class PaintingPipeline:
    """Draws red and black; how much red depends on the seed."""

    red: dict[int, float]
    drawn: list[int] = field(default_factory=list)

    @property
    def provenance(self) -> dict[str, Any]:
        return {"device": "painter"}

    @property
    def memory(self) -> None:
        return None

    def preview(self, row: int) -> Any:
        raise AssertionError("nobody asks for it here")

    def render(self, spec: RenderSpec, on_step: Any) -> Any:
        for step in range(1, spec.steps + 1):
            on_step(step, spec.steps)
        self.drawn.append(spec.seed)
        share = self.red[spec.seed]
        shares = [(color, share if color.name == "red" else 100 - share) for color, _ in ORDERED]
        return SimpleNamespace(pixels=_paint(shares), duration_s=1.5)


def _paint(shares: list[Any]) -> NDArray[np.uint8]:
    return paint_tile(shares, rng=np.random.default_rng(0), size_px=256, granule_px=10).pixels


@dataclass
class Progress:
    steps: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __call__(self, step: int, steps: int) -> None:
        self.steps.append((step, steps))

    def note(self, line: str) -> None:
        self.notes.append(line)


def draw(red: dict[int, float], candidates: int, seed: int = 42) -> tuple[Best, PaintingPipeline, Progress]:
    spec = new_spec()
    render = replace(spec.render, seed=seed, num_inference_steps=2, num_candidates=candidates)
    job = Job(replace(spec, render=render), Status.RUNNING, 0, 1)
    pipeline, progress = PaintingPipeline(red), Progress()
    station: Any = SimpleNamespace(pipeline=pipeline, manifest=MANIFEST)
    return draw_best(job, station, progress), pipeline, progress  # type: ignore[arg-type]


def test_the_truest_of_all_is_kept_and_its_seed_told() -> None:
    best, pipeline, progress = draw({42: 80, 43: 58, 44: 30}, 3)
    assert pipeline.drawn == [42, 43, 44]
    assert (best.provenance["seed"], best.candidates, best.duration_s) == (43, 3, 4.5)
    assert progress.steps == [(1, 6), (2, 6), (3, 6), (4, 6), (5, 6), (6, 6)]
    assert progress.notes[0].startswith("Candidate 1 of 3, seed 42: color error 0.3")
    assert progress.notes[-1].startswith("Kept seed 43")


def test_one_that_is_good_enough_is_the_last() -> None:
    best, pipeline, _ = draw({42: 80, 43: 50, 44: 50}, 3)
    assert pipeline.drawn == [42, 43]
    assert (best.candidates, best.provenance["seed"]) == (2, 43)


def test_seeds_go_on_from_zero_after_the_last() -> None:
    assert draw({2**32 - 1: 80, 0: 50}, 2, seed=2**32 - 1)[0].provenance["seed"] == 0


@pytest.mark.parametrize("share", [50, 80])
def test_an_order_for_one_is_one_call_as_ever(share: float) -> None:
    best, pipeline, progress = draw({42: share}, 1)
    assert (pipeline.drawn, best.provenance, best.candidates) == ([42], {"device": "painter"}, 1)
    assert (progress.steps, progress.notes) == ([(1, 2), (2, 2)], [])
