"""A profile with a distilled LoRA, on the real pipeline with random weights: drawn as it says, and nothing else is changed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.errors import InputInvalid, WeightsInvalid
from shared.jobs import RenderSpec
from shared.manifest import Distilled, Manifest, Profile, Scheduler
from shared.reuse import weights_digest
from shared.settings import Settings
from training.architecture import LORA_FILE
from worker.loading import build_scheduler
from worker.lora import fuse_lora
from worker.pipeline import Pipeline, load_pipeline

SETTINGS = Settings(dtype="float32", torch_threads=1)
SPEC = RenderSpec("ohwx_rubber_tile <s0><s1>, 100% red", "blurry", 7, 3, 7.0, 128, 128, "png", 100)
GUIDED = replace(SPEC, strength=0.7, painted=(("#C8252B", 100.0),), granule_px=20.0)
TRAILING = {"solver_order": 1, "use_karras_sigmas": False, "timestep_spacing": "trailing"}


def ignore(step: int, steps: int) -> None:
    pass


@pytest.fixture(scope="module")
def plain(random_mini: Manifest) -> Manifest:
    return random_mini.model_copy(update={"render": random_mini.render.model_copy(update={"batch_size": 2}), "profiles": {}})


@pytest.fixture(scope="module")
def lora(checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another LoRA than the model's, of the same shape."""
    tensors = load_file(checkpoint_dir / LORA_FILE)
    path = tmp_path_factory.mktemp("distilled") / "two_steps.safetensors"
    torch.manual_seed(1)
    mixed = {key: value if key.endswith("alpha") else value * torch.randn_like(value) for key, value in tensors.items()}
    save_file(mixed, path)
    return path


@pytest.fixture(scope="module")
def manifest(plain: Manifest, lora: Path) -> Manifest:
    scheduler = Scheduler(**(plain.render.scheduler.model_dump() | TRAILING))
    draft = Profile(num_inference_steps=2, guidance_scale=0.0, lora=Distilled(file=str(lora)), scheduler=scheduler)
    return plain.model_copy(update={"profiles": {"draft": draft}})


@pytest.fixture(scope="module")
def pipeline(manifest: Manifest) -> Pipeline:
    return load_pipeline(manifest, SETTINGS)


@pytest.fixture(scope="module")
def without(plain: Manifest) -> Pipeline:
    return load_pipeline(plain, SETTINGS)


@pytest.mark.parametrize("spec", [SPEC, GUIDED, replace(SPEC, seamless=True)], ids=["plain", "guided", "seamless"])
def test_the_models_own_pictures_are_the_same_to_the_last_bit(
    pipeline: Pipeline, without: Pipeline, manifest: Manifest, spec: RenderSpec
) -> None:
    expected = without.render(spec, ignore).pixels
    assert np.array_equal(pipeline.render(spec, ignore).pixels, expected)
    draft = pipeline.render(manifest.in_profile(spec, "draft"), ignore).pixels
    assert not np.array_equal(draft, expected)
    assert np.array_equal(pipeline.render(spec, ignore).pixels, expected)
    assert np.array_equal(pipeline.render(manifest.in_profile(spec, "draft"), ignore).pixels, draft)


def test_a_draft_is_what_both_loras_fused_draw_on_the_profiles_own_schedule(
    pipeline: Pipeline, manifest: Manifest, plain: Manifest, lora: Path, without: Pipeline
) -> None:
    steps = []
    draft = pipeline.render(manifest.in_profile(SPEC, "draft"), lambda step, of: steps.append((step, of))).pixels
    assert steps == [(1, 2), (2, 2)]
    other = load_pipeline(plain, SETTINGS)
    # Layout matters to the last bit, and fusing is done before it is changed.
    other._sdxl.unet.to(memory_format=torch.contiguous_format)
    fuse_lora(other._sdxl, lora, strength=1.0)
    other._sdxl.unet.to(memory_format=torch.channels_last)
    profile = manifest.profiles["draft"]
    assert profile.scheduler is not None
    scheduler = build_scheduler(profile.scheduler)
    for sdxl in (other._samplers[""].text, other._samplers[""].image):
        sdxl.scheduler = scheduler
    expected = other.render(replace(SPEC, num_inference_steps=2, guidance_scale=0.0), ignore).pixels
    assert np.array_equal(draft, expected)


def test_drafts_are_drawn_together_too_but_not_with_others(pipeline: Pipeline, manifest: Manifest) -> None:
    draft = manifest.in_profile(SPEC, "draft")
    pair = [one.pixels for one in pipeline.render_batch([draft, replace(draft, seed=8)], ignore)]
    turned = [one.pixels for one in pipeline.render_batch([replace(draft, seed=8), draft], ignore)]
    assert np.array_equal(pair[0], turned[1]) and np.array_equal(pair[1], turned[0])
    assert (pipeline.provenance["profile"], pipeline.provenance["batch_size"]) == ("draft", 2)
    same = replace(SPEC, num_inference_steps=2, guidance_scale=0.0)
    with pytest.raises(InputInvalid, match="cannot be drawn together"):
        pipeline.render_batch([draft, same], ignore)


def test_provenance_names_the_lora_and_other_files_are_other_weights(
    pipeline: Pipeline, without: Pipeline, manifest: Manifest, lora: Path
) -> None:
    pipeline.render(manifest.in_profile(SPEC, "draft"), ignore)
    drawn = pipeline.provenance
    told = drawn["distilled"]["draft"]
    assert (told["lora"], told["lora_strength"]) == (hashlib.sha256(lora.read_bytes()).hexdigest(), 1.0)
    assert told["scheduler"]["timestep_spacing"] == "trailing"
    assert drawn["profile"] == "draft"
    pipeline.render(SPEC, ignore)
    exact = pipeline.provenance
    assert "profile" not in exact
    # What the worker announced stands for both; which of the two an order asks for is part of the order.
    assert weights_digest(drawn) == weights_digest(exact) != weights_digest(without.provenance)
    other: dict[str, Any] = {**exact, "distilled": {"draft": told | {"lora": "0" * 64}}}
    assert weights_digest(other) != weights_digest(exact)


def test_a_worker_without_the_profile_refuses_its_orders(without: Pipeline, manifest: Manifest) -> None:
    with pytest.raises(InputInvalid, match="no profile 'draft'") as caught:
        without.render(manifest.in_profile(SPEC, "draft"), ignore)
    assert caught.value.field == "profile"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda tensors: tensors | {"lora_unet_nowhere.lora_down.weight": torch.zeros(4, 4)}, "adapt nothing"),
        (
            lambda tensors: {
                "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2, 64),
                "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight": torch.zeros(64, 2),
            },
            "text_encoder",
        ),
    ],
    ids=["a key too many", "a text encoder"],
)
def test_a_distilled_lora_is_judged_as_strictly_as_the_models(
    base_pipeline: Any, manifest: Manifest, lora: Path, tmp_path: Path, damage: Any, says: str
) -> None:
    path = tmp_path / "damaged.safetensors"
    save_file(damage(load_file(lora)), path)
    with pytest.raises(WeightsInvalid, match=says):
        fuse_lora(base_pipeline, path, strength=1.0, allowed=("unet",))


def test_a_pin_of_a_distilled_lora_is_kept(manifest: Manifest) -> None:
    profile = manifest.profiles["draft"]
    assert profile.lora is not None
    pinned = profile.model_copy(update={"lora": profile.lora.model_copy(update={"sha256": "0" * 64})})
    with pytest.raises(WeightsInvalid, match="two_steps.safetensors.*pins"):
        load_pipeline(manifest.model_copy(update={"profiles": {"draft": pinned}}), SETTINGS)
