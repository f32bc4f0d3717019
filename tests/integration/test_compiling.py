"""torch.compile is wired to what is drawn with. The compiler here is the one that traces and generates no code: it is quick."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from shared.jobs import RenderSpec
from shared.manifest import Render, load_manifest
from shared.settings import REPOSITORY
from worker.compiling import compile_models, pays
from worker.loading import Digests, LoadedModel, place_pipeline
from worker.pipeline import Pipeline

CPU = torch.device("cpu")
SPEC = RenderSpec("100% red", None, 7, 2, 7.0, 64, 64, "png", 100)


@pytest.mark.parametrize(
    ("asked", "device", "expected"), [(True, "cuda:0", True), (False, "cuda:0", False), (True, "cpu", False)]
)
def test_a_model_is_compiled_where_its_manifest_asks_for_it_and_it_pays(asked: bool, device: str, expected: bool) -> None:
    assert pays(Render(compile=asked), torch.device(device)) is expected


def test_no_shipped_model_is_compiled_unasked() -> None:
    assert Render().compile is False
    assert Render().compile_mode == "default"


@pytest.mark.parametrize(("mode", "told"), [("default", {}), ("reduce-overhead", {"mode": "reduce-overhead"})])
def test_both_models_are_compiled_in_the_mode_of_the_manifest(mode: str, told: dict[str, str]) -> None:
    asked: list[dict[str, Any]] = []
    model = SimpleNamespace(compile=lambda **given: asked.append(given))
    compile_models(cast("Any", SimpleNamespace(unet=model, vae=SimpleNamespace(decoder=model))), mode=mode)
    assert asked == [{"backend": "inductor", "dynamic": False, **told}] * 2


def test_compiled_models_draw_the_same_picture_and_step_aside_for_seamless_ones(base_pipeline: Any) -> None:
    manifest = load_manifest(REPOSITORY / "models" / "rubber-tile-mini.toml")
    # Other tests share the decoder that this would set up and compile.
    base_pipeline.register_modules(vae=copy.deepcopy(base_pipeline.vae))
    place_pipeline(base_pipeline, manifest.render, device=CPU, dtype=torch.float32)
    pipeline = Pipeline(LoadedModel(base_pipeline, Digests("0" * 64, None, None), 0, CPU, torch.float32), manifest)
    seamless = replace(SPEC, seamless=True)
    written, written_seamless = (pipeline.render(spec, lambda step, steps: None).pixels for spec in (SPEC, seamless))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    try:
        compile_models(base_pipeline, backend="eager")
        compiled = pipeline.render(SPEC, lambda step, steps: None).pixels
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        compiled_seamless = pipeline.render(seamless, lambda step, steps: None).pixels
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs >= 2
    finally:
        torch._dynamo.reset()
    assert np.array_equal(compiled, written) and np.array_equal(compiled_seamless, written_seamless)
