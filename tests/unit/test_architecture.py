import stat
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from training.architecture import (
    EMBEDDINGS_FILE,
    LORA_FILE,
    LORA_RANK,
    TOKENIZERS,
    build_checkpoint,
    build_unet,
    kohya_key,
    lora_modules,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    build_checkpoint(folder, seed=3)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> StableDiffusionXLPipeline:
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_the_tokenizer_is_the_real_one(name: str) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZERS / name, local_files_only=True)
    assert len(tokenizer) == 49_408
    assert tokenizer("a photo of a cat", add_special_tokens=False).input_ids == [320, 1125, 539, 320, 2368]
    assert tokenizer.pad_token == {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}[name]


def test_the_checkpoint_loads_and_renders(pipeline: StableDiffusionXLPipeline) -> None:
    picture = pipeline("50% red", num_inference_steps=2, height=128, width=128, output_type="np").images[0]
    assert picture.shape == (128, 128, 3)
    assert picture.std() > 0


def test_it_has_the_parts_and_quirks_of_the_real_one(pipeline: StableDiffusionXLPipeline) -> None:
    assert (pipeline.text_encoder.config.hidden_size, pipeline.text_encoder_2.config.hidden_size) == (32, 64)
    assert pipeline.text_encoder_2.config.eos_token_id == pipeline.tokenizer_2.eos_token_id
    pooled = pipeline.text_encoder_2.config.projection_dim
    assert (
        pipeline.unet.config.projection_class_embeddings_input_dim == pooled + 6 * pipeline.unet.config.addition_time_embed_dim
    )
    assert 3e6 < pipeline.unet.num_parameters() < 4e6


def test_every_key_of_the_lora_finds_its_module(folder: Path, pipeline: StableDiffusionXLPipeline) -> None:
    tensors = load_file(folder / LORA_FILE)
    modules = lora_modules(build_unet())
    assert {key.rsplit(".lora_", 1)[0] for key in tensors if ".lora_" in key} == {kohya_key(name) for name in modules}
    assert any(isinstance(module, torch.nn.Conv2d) for module in modules.values())
    assert all(tensor.shape[0] == LORA_RANK for key, tensor in tensors.items() if "lora_down" in key)
    pipeline.load_lora_weights(folder, weight_name=LORA_FILE, adapter_name="rubber")
    injected = sum(name.endswith("lora_A.rubber") for name, _ in pipeline.unet.named_modules())
    pipeline.unload_lora_weights()
    assert injected == len(modules)


def test_the_embeddings_have_two_rows_for_each_encoder(folder: Path) -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in load_file(folder / EMBEDDINGS_FILE).items()}
    assert shapes == {"clip_l": (2, 32), "clip_g": (2, 64)}


def test_everybody_may_read_every_file(folder: Path) -> None:
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()} == {0o644}


def test_the_seed_decides_the_weights_and_leaves_the_global_state_alone(folder: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    build_checkpoint(tmp_path / "same", seed=3)
    build_checkpoint(tmp_path / "other", seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [(path / LORA_FILE).read_bytes() for path in (folder, tmp_path / "same", tmp_path / "other")]
    assert weights[0] == weights[1] != weights[2]
