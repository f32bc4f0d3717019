"""A profile's cut-off of guidance, on the real pipeline with random weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.callbacks import SDXLCFGCutoffCallback

from shared.errors import InputInvalid
from shared.jobs import RenderSpec
from shared.manifest import load_manifest
from shared.settings import REPOSITORY
from worker.loading import Digests, LoadedModel, place_pipeline
from worker.pipeline import Pipeline

CPU = torch.device("cpu")
SPEC = RenderSpec("100% red", "blurry", 7, 4, 7.0, 128, 128, "png", 100)
FAST = replace(SPEC, guidance_end=0.5)


def ignore(step: int, steps: int) -> None:
    pass


@pytest.fixture
def pipeline(base_pipeline: Any) -> Pipeline:
    manifest = load_manifest(REPOSITORY / "models" / "rubber-tile-mini.toml")
    # Other tests share the decoder that this would set up and compile.
    base_pipeline.register_modules(vae=copy.deepcopy(base_pipeline.vae))
    place_pipeline(base_pipeline, manifest.render, device=CPU, dtype=torch.float32)
    return Pipeline(LoadedModel(base_pipeline, Digests("0" * 64, None, None), 0, CPU, torch.float32), manifest)


@contextmanager
def rows_seen(unet: Any) -> Iterator[list[int]]:
    """How many rows each call of the UNet has: two with guidance, one without."""
    rows: list[int] = []
    hook = unet.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    try:
        yield rows
    finally:
        hook.remove()


def test_guidance_ends_where_the_profile_says_and_the_next_picture_is_exact(pipeline: Pipeline, base_pipeline: Any) -> None:
    exact = pipeline.render(SPEC, ignore).pixels
    with rows_seen(base_pipeline.unet) as rows:
        fast = pipeline.render(FAST, ignore).pixels
        again = pipeline.render(SPEC, ignore).pixels
    assert rows == [2, 2, 1, 1, 2, 2, 2, 2]
    assert np.array_equal(again, exact) and not np.array_equal(fast, exact)


def test_the_cut_off_is_the_librarys_own(pipeline: Pipeline, base_pipeline: Any) -> None:
    theirs = base_pipeline(
        SPEC.prompt,
        negative_prompt=SPEC.negative_prompt,
        num_inference_steps=SPEC.num_inference_steps,
        guidance_scale=SPEC.guidance_scale,
        width=SPEC.width_px,
        height=SPEC.height_px,
        generator=torch.Generator("cpu").manual_seed(SPEC.seed),
        callback_on_step_end=SDXLCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1),
        output_type="np",
    ).images[0]
    ours = pipeline.render(FAST, ignore).pixels.astype(float) / 255
    assert np.abs(ours - theirs).max() < 1.5 / 255


def test_a_guided_picture_ends_its_guidance_too(pipeline: Pipeline, base_pipeline: Any) -> None:
    spec = replace(FAST, strength=1.0, painted=(("#C8252B", 100.0),), granule_px=20.0)
    with rows_seen(base_pipeline.unet) as rows:
        pipeline.render(spec, ignore)
    assert rows == [2, 2, 1, 1]


@pytest.mark.parametrize("guidance_end", [0.0, 1.5, float("nan")])
def test_a_part_that_is_none_is_refused(pipeline: Pipeline, guidance_end: float) -> None:
    with pytest.raises(InputInvalid) as caught:
        pipeline.render(replace(SPEC, guidance_end=guidance_end), ignore)
    assert caught.value.field == "guidance_end"
