"""Pictures that begin with a painted tile or continue themselves, on the real pipeline with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shared.errors import InputInvalid
from shared.jobs import RenderSpec
from shared.manifest import load_manifest
from shared.settings import Settings
from worker.pipeline import Pipeline, load_pipeline
from worker.seamless import circular_padding

SPEC = RenderSpec("ohwx_rubber_tile <s0><s1>, 60% red, 40% black", "blurry", 7, 6, 7.0, 128, 128, "png", 100)


class Stop(Exception):
    pass


def ignore(step: int, steps: int) -> None:
    pass


@pytest.fixture(scope="module")
def pipeline(small_models: Path) -> Pipeline:
    """The warm pipeline in float32, in which pictures can be compared to the last level."""
    manifest = small_models / "small.toml"
    return load_pipeline(load_manifest(manifest), Settings(dtype="float32", torch_threads=1))


@pytest.fixture(scope="module")
def expected(pipeline: Pipeline) -> np.ndarray:
    return pipeline.render(SPEC, ignore).pixels


GUIDED = replace(SPEC, strength=0.5, painted=(("#C02020", 60.0), ("#202020", 40.0)), granule_px=24.0)


def test_a_guided_picture_takes_the_last_steps_and_the_same_seed_gives_the_same_bytes(pipeline: Pipeline) -> None:
    steps: list[tuple[int, int]] = []
    first = pipeline.render(GUIDED, lambda step, total: steps.append((step, total))).pixels
    assert steps == [(1, 3), (2, 3), (3, 3)] and GUIDED.steps == 3
    assert np.array_equal(pipeline.render(GUIDED, ignore).pixels, first)
    assert not np.array_equal(pipeline.render(replace(GUIDED, seed=8), ignore).pixels, first)


@pytest.mark.parametrize("spec", [SPEC, GUIDED, replace(GUIDED, seamless=True)])
def test_looking_at_a_drawing_changes_nothing_of_it(pipeline: Pipeline, spec: RenderSpec) -> None:
    seen: list[tuple[int, ...]] = []
    looked_at = pipeline.render(spec, lambda step, steps: seen.append(pipeline.preview(0).shape)).pixels
    assert seen == [(16, 16, 3)] * spec.steps
    assert np.array_equal(looked_at, pipeline.render(spec, ignore).pixels)


def test_guided_and_seamless_leave_nothing_behind(pipeline: Pipeline, expected: np.ndarray) -> None:
    tiling = pipeline._sdxl.vae.use_tiling
    pipeline.render(replace(GUIDED, seamless=True), ignore)
    assert pipeline._sdxl.vae.use_tiling == tiling
    assert np.array_equal(pipeline.render(SPEC, ignore).pixels, expected)

    def stop(step: int, steps: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        pipeline.render(replace(SPEC, seamless=True), stop)
    assert np.array_equal(pipeline.render(SPEC, ignore).pixels, expected)


def test_guided_pictures_are_drawn_by_the_one_model_in_memory(pipeline: Pipeline) -> None:
    for name, part in pipeline._sdxl.components.items():
        assert pipeline._samplers[""].image.components[name] is part


def test_on_the_torus_a_shifted_start_gives_the_shifted_picture(pipeline: Pipeline) -> None:
    vae, unet = pipeline._sdxl.vae, pipeline._sdxl.unet
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with circular_padding(unet, vae):
        picture = pipeline._decode(latents).astype(int)
        shifted = pipeline._decode(latents.roll((5, 3), (2, 3))).astype(int)
    assert np.abs(np.roll(picture, (40, 24), (0, 1)) - shifted).max() <= 1
    outside = pipeline._decode(latents.roll((5, 3), (2, 3))).astype(int)
    assert np.abs(np.roll(picture, (40, 24), (0, 1)) - outside).max() > 1


@pytest.mark.parametrize(
    ("change", "at_fault"),
    [
        ({"strength": 0.0}, "strength"),
        ({"strength": 1.5}, "strength"),
        ({"painted": ()}, "painted"),
        ({"height_px": 192}, "width"),
    ],
)
def test_a_guide_that_cannot_be_painted_is_refused_by_field(pipeline: Pipeline, change: dict[str, Any], at_fault: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        pipeline.render(replace(GUIDED, **change), ignore)
    assert caught.value.field == at_fault
