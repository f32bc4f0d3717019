"""Profiles: other ways to draw that a manifest offers and an order asks for by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from api.drawing import render_spec
from api.params import PredictionInput
from api.schemas import model_schema
from shared.batching import share_forward
from shared.errors import InputInvalid, ManifestInvalid
from shared.jobs import RenderSpec
from shared.manifest import Distilled, Manifest, Profile, load_manifest
from shared.prompts import parse_prompt
from shared.settings import REPOSITORY
from worker.pipeline import _warm_up_spec

V45 = REPOSITORY / "models" / "rubber-tile-lora-v45.toml"


@pytest.fixture
def manifest() -> Manifest:
    quick = {"fast": Profile(num_inference_steps=12, guidance_end=0.5), "fewer": Profile(num_inference_steps=12)}
    return load_manifest(V45).model_copy(update={"profiles": quick})


def drawn(manifest: Manifest, **given: str) -> RenderSpec:
    wanted = PredictionInput(**({"prompt": "50% red, 50% black"} | given))  # type: ignore[arg-type]
    parsed = parse_prompt(wanted.prompt, manifest, "lenient")
    return render_spec(wanted, parsed, manifest, negative_prompt=None, seed=1, max_candidates=1)[0]


@pytest.mark.parametrize(
    ("profile", "unguided"),
    [
        (Profile(num_inference_steps=12), False),
        (Profile(guidance_end=0.5), True),
        (Profile(guidance_scale=1.0), True),
        (Profile(guidance_scale=1.5), False),
        # A UNet of its own is warmed in its own way.
        (Profile(guidance_scale=0.0, lora=Distilled(file="four.safetensors")), False),
    ],
)
def test_the_models_unet_is_warmed_without_guidance_where_a_profile_has_such_steps(
    manifest: Manifest, profile: Profile, unguided: bool
) -> None:
    spec = _warm_up_spec(manifest.model_copy(update={"profiles": {"it": profile}}), torch.device("cpu"))
    assert (spec.guided_steps < spec.steps) is unguided


def test_an_order_that_names_no_profile_is_drawn_as_ever(manifest: Manifest) -> None:
    plain = drawn(load_manifest(V45))
    assert drawn(manifest) == drawn(manifest, profile="exact") == plain
    assert (plain.num_inference_steps, plain.guided_steps) == (20, 20)


def test_a_profile_changes_what_it_names_and_nothing_else(manifest: Manifest) -> None:
    fast, fewer = drawn(manifest, profile="fast"), drawn(manifest, profile="fewer")
    assert (fast.num_inference_steps, fast.guided_steps) == (12, 6)
    assert (fewer.num_inference_steps, fewer.guided_steps) == (12, 12)
    assert fast.guidance_scale == fewer.guidance_scale == manifest.render.guidance_scale


def test_a_distilled_profile_says_whose_weights_draw_and_how(manifest: Manifest) -> None:
    draft = Profile(num_inference_steps=4, guidance_scale=0.0, lora=Distilled(file="four.safetensors"))
    spec = drawn(manifest.model_copy(update={"profiles": manifest.profiles | {"draft": draft}}), profile="draft")
    assert (spec.num_inference_steps, spec.guidance_scale, spec.distilled) == (4, 0.0, "draft")
    fast = drawn(manifest, profile="fast")
    assert fast.distilled == "" and not share_forward(spec, replace(spec, distilled=""))


def test_a_distilled_lora_is_fused_whole_unless_its_manifest_says_otherwise() -> None:
    assert Distilled(file="four.safetensors").strength == 1.0


def test_an_unknown_profile_is_refused_by_name(manifest: Manifest) -> None:
    with pytest.raises(InputInvalid, match="it has exact, fast, fewer") as caught:
        drawn(manifest, profile="draft")
    assert caught.value.field == "input.profile"


def test_the_description_of_a_version_lists_its_profiles(manifest: Manifest) -> None:
    field = model_schema(manifest)["components"]["schemas"]["Input"]["properties"]["profile"]
    assert (field["enum"], field["default"]) == (["exact", "fast", "fewer"], "exact")


@pytest.mark.parametrize(
    "table",
    [
        "[profiles.exact]\nguidance_end = 0.5",
        "[profiles.fast]\nguidance_end = 0.0",
        "[profiles.fast]\nsteps = 3",
        "[profiles.fast.scheduler]\nsolver_order = 1",
        '[profiles.draft.lora]\nfile = "four.safetensors"\n[profiles.draft.scheduler]\nprediction_type = "v_prediction"',
    ],
)
def test_a_profile_that_cannot_be_is_refused_with_the_manifest(table: str, tmp_path: Path) -> None:
    (tmp_path / "palette.toml").write_bytes((V45.parent / "palette.toml").read_bytes())
    path = tmp_path / "model.toml"
    path.write_text(f"{V45.read_text(encoding='utf-8')}\n{table}\n", encoding="utf-8")
    with pytest.raises(ManifestInvalid, match="profile"):
        load_manifest(path)
