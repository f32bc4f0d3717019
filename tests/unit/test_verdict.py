"""The loader's verdict without weights is the loader's own: what it accepts loads, and what it refuses does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.manifest import Distilled, Manifest, Profile, load_manifest
from shared.settings import REPOSITORY, Settings
from training.architecture import EMBEDDINGS_FILE, LORA_FILE
from worker.verdict import Judge, Verdict


@pytest.fixture(scope="module")
def manifest(checkpoint_dir: Path) -> Manifest:
    shipped = load_manifest(REPOSITORY / "models/rubber-tile-mini.toml")
    assert shipped.lora is not None and shipped.textual_inversion is not None
    parts = {
        "base": str(checkpoint_dir),
        "base_sha256": None,
        "lora": shipped.lora.model_copy(update={"file": str(checkpoint_dir / LORA_FILE), "sha256": None}),
        "textual_inversion": shipped.textual_inversion.model_copy(
            update={"file": str(checkpoint_dir / EMBEDDINGS_FILE), "sha256": None}
        ),
    }
    return shipped.model_copy(update=parts)


@pytest.fixture(scope="module")
def judge(manifest: Manifest) -> Judge:
    return Judge(manifest, Settings())


def changed(source: Path, target: Path, **changes: torch.Tensor | None) -> Path:
    """A copy of a file with some tensors replaced, added, or left out."""
    tensors: dict[str, Any] = load_file(source) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, target)
    return target


def test_what_a_worker_loads_is_accepted_with_what_is_in_it(judge: Judge, checkpoint_dir: Path) -> None:
    base, lora, inversion = judge.all_files()
    assert [verdict.refusal for verdict in (base, lora, inversion)] == [None] * 3
    assert (base.kind, lora.kind, inversion.kind) == ("base", "lora", "textual_inversion")
    assert lora.facts["layers"]["unet"] > 50 and lora.facts["size_bytes"] == (checkpoint_dir / LORA_FILE).stat().st_size
    assert (inversion.facts["text_encoder"], inversion.facts["text_encoder_2"]) == ([2, 32], [2, 64])


def test_a_file_is_told_by_what_is_in_it_and_not_by_its_name(judge: Judge, checkpoint_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "embeddings.safetensors").symlink_to(checkpoint_dir / LORA_FILE)
    (tmp_path / "lora").symlink_to(checkpoint_dir / EMBEDDINGS_FILE)
    assert judge.file(tmp_path / "embeddings.safetensors").kind == "lora"
    assert judge.file(tmp_path / "lora").kind == "textual_inversion"


def test_what_a_worker_would_refuse_is_refused_in_its_words(judge: Judge, checkpoint_dir: Path, tmp_path: Path) -> None:
    lora, inversion = checkpoint_dir / LORA_FILE, checkpoint_dir / EMBEDDINGS_FILE
    half = next(key for key in load_file(lora) if "lora_down" in key)

    def refusal(path: Path) -> str:
        verdict: Verdict = judge.file(path)
        assert verdict.refusal is not None
        return verdict.refusal

    assert "does not exist" in refusal(tmp_path / "nothing")
    (tmp_path / "page.safetensors").write_text("<html>not found</html>")
    assert "is no sound safetensors file" in refusal(tmp_path / "page.safetensors")
    assert "has no down half" in refusal(changed(lora, tmp_path / "cut", **{half: None}))
    assert "NaN" in refusal(changed(inversion, tmp_path / "nan", clip_l=torch.full((2, 32), torch.nan)))
    assert "3 rows for 2 tokens" in refusal(changed(inversion, tmp_path / "rows", clip_l=torch.zeros(3, 32)))
    assert "fits no text encoder" in refusal(changed(inversion, tmp_path / "wide", clip_l=torch.zeros(2, 768)))
    assert "adapt nothing in the base model" in refusal(checkpoint_dir / "unet/diffusion_pytorch_model.safetensors")


def test_tokens_can_be_named_and_a_word_is_none(manifest: Manifest, checkpoint_dir: Path) -> None:
    other = Judge(manifest, Settings(), tokens=("<a>", "<b>")).file(checkpoint_dir / EMBEDDINGS_FILE)
    assert (other.refusal, other.facts["tokens"]) == (None, ["<a>", "<b>"])
    known = Judge(manifest, Settings(), tokens=("<a>", "tile</w>")).file(checkpoint_dir / EMBEDDINGS_FILE)
    assert known.refusal is not None and "knows tile</w> already" in known.refusal


def test_a_pin_of_the_manifest_counts_for_its_own_file_only(manifest: Manifest, checkpoint_dir: Path, tmp_path: Path) -> None:
    assert manifest.lora is not None
    pinned = manifest.model_copy(update={"lora": manifest.lora.model_copy(update={"sha256": "0" * 64})})
    judge = Judge(pinned, Settings())
    own = judge.file(checkpoint_dir / LORA_FILE)
    assert own.refusal is not None and "its manifest pins 000" in own.refusal
    assert judge.file(changed(checkpoint_dir / LORA_FILE, tmp_path / "other")).refusal is None


def test_without_the_base_it_says_so(manifest: Manifest, checkpoint_dir: Path, tmp_path: Path) -> None:
    lost = Judge(manifest.model_copy(update={"base": str(tmp_path / "lost")}), Settings())
    assert "is no folder; put the base model" in str(lost.base().refusal)
    verdict = lost.file(checkpoint_dir / LORA_FILE)
    assert "is no folder" in str(verdict.refusal) and verdict.facts["sha256"]


@pytest.fixture
def drafts(manifest: Manifest, checkpoint_dir: Path, tmp_path: Path) -> Manifest:
    """With a profile that has a LoRA for the UNet alone."""
    others = {key: None for key in load_file(checkpoint_dir / LORA_FILE) if not key.startswith("lora_unet")}
    path = changed(checkpoint_dir / LORA_FILE, tmp_path / "draft.safetensors", **others)
    return manifest.model_copy(update={"profiles": {"draft": Profile(lora=Distilled(file=str(path)))}})


def test_a_profiles_lora_may_adapt_the_unet_only(drafts: Manifest, tmp_path: Path) -> None:
    path, layer = tmp_path / "draft.safetensors", "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    assert Judge(drafts, Settings()).file(path).refusal is None
    more = {f"{layer}.lora_A.weight": torch.zeros(2, 32), f"{layer}.lora_B.weight": torch.zeros(32, 2)}
    changed(path, path, **more)
    assert "adapt another part of the model than unet" in str(Judge(drafts, Settings()).file(path).refusal)
    # As the model's own it would do.
    assert Judge(drafts.model_copy(update={"profiles": {}}), Settings()).file(path).refusal is None


def test_a_profiles_lora_is_loaded_in_its_place(drafts: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Manifest] = []
    monkeypatch.setattr("worker.verdict.load_model", lambda manifest, settings: loaded.append(manifest))
    assert Judge(drafts, Settings(), load=True).file(tmp_path / "draft.safetensors").refusal is None
    assert loaded == [drafts]


def test_loading_for_certain(manifest: Manifest, checkpoint_dir: Path, tmp_path: Path) -> None:
    judge = Judge(manifest, Settings(), load=True)
    verdict = judge.file(changed(checkpoint_dir / LORA_FILE, tmp_path / "other.safetensors"))
    assert verdict.refusal is None and verdict.facts["loaded"] is True
