"""Batches on the real pipeline, mini with its own weights: what a picture depends on, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shared.batching import share_forward
from shared.errors import InputInvalid, OutOfMemory, PromptInvalid
from shared.jobs import RenderSpec
from shared.manifest import load_manifest
from shared.reuse import weights_digest
from shared.settings import REPOSITORY, Settings
from worker.pipeline import Pipeline, load_pipeline

ROWS = 3
MINI = load_manifest(REPOSITORY / "models" / "rubber-tile-mini.toml")
PLAIN = replace(MINI.plain_spec(MINI.prompt.fill("100% red"), 7), num_inference_steps=2, width_px=128, height_px=128)
GUIDED = replace(PLAIN, num_inference_steps=4, strength=0.5, painted=(("#C8252B", 60.0), ("#1C1C1C", 40.0)), granule_px=20.0)
KINDS = {
    "plain": PLAIN,
    "guided": GUIDED,
    "guidance ends early": replace(PLAIN, guidance_end=0.5),
    "without guidance": replace(PLAIN, guidance_scale=1.0),
    "seamless": replace(PLAIN, seamless=True),
}


def ignore(step: int, steps: int) -> None:
    pass


def pixels(pipeline: Pipeline, *specs: RenderSpec) -> list[np.ndarray]:
    return [rendered.pixels for rendered in pipeline.render_batch(specs, ignore)]


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    render = MINI.render.model_copy(update={"batch_size": ROWS, "width_px": 128, "height_px": 128})
    return load_pipeline(MINI.model_copy(update={"render": render}), Settings(torch_threads=1))


@contextmanager
def rows_seen(pipeline: Pipeline) -> Iterator[list[int]]:
    rows: list[int] = []
    hook = pipeline._sdxl.unet.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    try:
        yield rows
    finally:
        hook.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_depends_neither_on_its_neighbours_nor_on_its_place(pipeline: Pipeline, kind: str) -> None:
    spec = KINDS[kind]
    blue = replace(spec, prompt=MINI.prompt.fill("100% blue"), seed=8, negative_prompt="blurry")
    other = replace(spec, seed=2**32 - 1, painted=(("#2040A0", 100.0),) if spec.painted else ())
    first, second, third = pixels(pipeline, spec, blue, other)
    moved_third, moved_first, moved_second = pixels(pipeline, other, spec, blue)
    for here, there in ((first, moved_first), (second, moved_second), (third, moved_third)):
        assert np.array_equal(here, there)
    [strangers_first, *_] = pixels(pipeline, spec, other, other)
    [lonely] = pixels(pipeline, spec)
    assert np.array_equal(strangers_first, first) and np.array_equal(lonely, first)
    assert not np.array_equal(first, second) and not np.array_equal(first, third)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_picture_that_the_job_gets_alone_but_for_rounding(pipeline: Pipeline, kind: str) -> None:
    spec = KINDS[kind]
    alone = pipeline.render(spec, ignore).pixels.astype(float)
    together = pixels(pipeline, spec, replace(spec, seed=8))[0].astype(float)
    assert np.abs(alone - together).mean() < 1.0
    assert np.array_equal(pipeline.render(spec, ignore).pixels, alone)


def test_one_call_of_the_model_draws_all_rows_at_each_step(pipeline: Pipeline) -> None:
    steps = []
    with rows_seen(pipeline) as rows:
        pipeline.render_batch([PLAIN, PLAIN], lambda step, of: steps.append((step, of)))
        pipeline.render_batch([KINDS["guidance ends early"]], ignore)
    assert rows == [2 * ROWS, 2 * ROWS, 2 * ROWS, ROWS]
    assert steps == [(1, 2), (2, 2)]


def test_provenance_says_how_many_rows_there_were_and_workers_announce_the_picture_alone(pipeline: Pipeline) -> None:
    pixels(pipeline, PLAIN)
    assert pipeline.provenance["batch_size"] == ROWS
    together = weights_digest(pipeline.provenance)
    pipeline.render(PLAIN, ignore)
    assert pipeline.provenance["batch_size"] == 1
    before_batches = {name: value for name, value in pipeline.provenance.items() if name != "batch_size"}
    assert weights_digest(pipeline.provenance) == weights_digest(before_batches) != together


def test_what_cannot_be_drawn_together_is_refused(pipeline: Pipeline) -> None:
    for spec in (replace(PLAIN, num_inference_steps=3), replace(PLAIN, seamless=True), GUIDED):
        assert not share_forward(PLAIN, spec)
        with pytest.raises(InputInvalid, match="cannot be drawn together"):
            pipeline.render_batch([PLAIN, spec], ignore)
    with pytest.raises(InputInvalid, match="cannot be drawn together"):
        pipeline.render_batch([PLAIN] * (ROWS + 1), ignore)


def test_a_bad_one_is_the_end_of_its_batch_and_of_nothing_else(pipeline: Pipeline) -> None:
    expected = pixels(pipeline, PLAIN)[0]
    with pytest.raises(PromptInvalid):
        pixels(pipeline, PLAIN, replace(PLAIN, prompt="red " * 90))
    with pytest.raises(OutOfMemory):
        pixels(pipeline, replace(PLAIN, width_px=2**23, height_px=2**23))
    assert np.array_equal(pixels(pipeline, PLAIN)[0], expected)


def test_what_on_step_raises_ends_the_batch_unchanged(pipeline: Pipeline) -> None:
    stop = RuntimeError("mine")

    def raise_stop(*_: Any) -> None:
        raise stop

    with pytest.raises(RuntimeError) as caught:
        pipeline.render_batch([PLAIN], raise_stop)
    assert caught.value is stop
