"""Mini's training goes its whole way, can be stopped anywhere, and its losses see what they are there to see."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from training import train_mini, vae
from training.architecture import EMBEDDINGS_FILE, LORA_FILE
from training.critic import grain_loss, grid_loss
from training.data import Series
from training.measure import CompositionProbe
from training.train_mini import Recipe, train
from training.unet import Phase

TINY = Recipe(
    vae_steps=2,
    critic_steps=2,
    text_steps=2,
    unet_phases=(Phase(2, 16, 4),),
    adapter_phases=(Phase(1, 16, 2), Phase(2, 64, 1)),
    terrazzo=Series("terrazzo", 256, 1, 2, 1),
    rubber=Series("rubber", 256, 1, 2, 3),
    wide_rubber=Series("rubber", 512, 1, 1, 4),
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae, "_TILES", 1)
    monkeypatch.setattr(train_mini, "CompositionProbe", partial(CompositionProbe, pictures=1, side=16))


def steps_logged(folder: Path) -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["stage"], line["step"]) for line in lines]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = {path.relative_to(folder).as_posix(): load_file(path) for path in sorted(folder.rglob("*.safetensors"))}
    return {f"{path}:{name}": tensor for path, tensors in found.items() for name, tensor in tensors.items()}


def test_a_run_that_was_stopped_goes_on_where_it_was_and_a_finished_one_does_nothing(small: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(out, tmp_path / "half", TINY)
    assert {path.name for path in (tmp_path / "half").iterdir()} >= {LORA_FILE, EMBEDDINGS_FILE, "model_index.json"}
    first = steps_logged(out)
    assert {stage for stage, _ in first} == {"vae", "text", "unet", "adapters", "critic"}
    train(out, tmp_path / "same", TINY)
    assert steps_logged(out) == first
    half, same = weights(tmp_path / "half"), weights(tmp_path / "same")
    assert half.keys() == same.keys() and all(torch.equal(half[name], same[name]) for name in half)
    (out / "adapters.pt").unlink()
    train(out, tmp_path / "whole", TINY.longer(2))
    later = steps_logged(out)[len(first) :]
    assert {step for stage, step in later if stage == "unet"} == {4}
    assert not any(stage in ("vae", "text", "critic") for stage, _ in later)


def test_a_finished_checkpoint_can_be_trained_further(small: None, tmp_path: Path) -> None:
    train(tmp_path / "one", tmp_path / "start", TINY)
    # The autoencoder stays, and so do the latents.
    shutil.copytree(tmp_path / "one" / "latents", tmp_path / "two" / "latents")
    train(tmp_path / "two", tmp_path / "end", TINY, start=tmp_path / "start")
    start, end = weights(tmp_path / "start"), weights(tmp_path / "end")
    encoders = [name for name in start if name.startswith("vae") and ("encoder" in name and "decoder" not in name)]
    assert encoders and all(torch.equal(start[name], end[name]) for name in encoders)
    table = next(name for name in start if name.startswith("text_encoder/") and "token_embedding" in name)
    moved = (start[table].float() - end[table].float()).abs()
    assert 0 < moved.max() < 0.05
    assert "vae" not in {stage for stage, _ in steps_logged(tmp_path / "two")}


def test_a_blurred_picture_lacks_grain_and_a_grid_is_seen_under_it() -> None:
    rng = np.random.default_rng(7)
    true = torch.from_numpy(rng.uniform(-1, 1, (2, 3, 64, 64)).astype(np.float32))
    other = torch.from_numpy(rng.uniform(-1, 1, (2, 3, 64, 64)).astype(np.float32))
    blurred = functional.avg_pool2d(true, 3, 1, 1)
    assert grain_loss(true, true) == grid_loss(true, true) == 0
    assert grain_loss(blurred, true) > 2 * grain_loss(other, true)
    dots = torch.zeros(64, 64)
    dots[::8, ::8] = 1.0
    assert grid_loss(other + dots, true) > 3 * grid_loss(other, true)
