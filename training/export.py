"""Writes the finished checkpoint as the real one is written: base folder, kohya LoRA, two-key embeddings, in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training.architecture import (
    EMBEDDINGS_FILE,
    LORA_FILE,
    assemble_pipeline,
    build_text_encoder,
    build_text_encoder_2,
    build_unet,
    build_vae,
    write_pipeline,
    write_tensors,
)

TextStates = Mapping[str, Mapping[str, Tensor]]


def export_base(folder: Path, vae: AutoencoderKL, unet: Mapping[str, Tensor], texts: TextStates) -> None:
    """Write the base model to `folder` in fp16. `unet` and `texts` are state dicts from before any adapter was added."""
    parts = build_unet(), build_text_encoder(), build_text_encoder_2(), build_vae(vae.config.scaling_factor)
    for part, state in zip(parts, (unet, texts["encoder"], texts["encoder_2"], vae.state_dict()), strict=True):
        part.load_state_dict(state)
        part.half()
    built_unet, encoder, encoder_2, built_vae = parts
    folder.mkdir(parents=True, exist_ok=True)
    write_pipeline(assemble_pipeline(vae=built_vae, text_encoder=encoder, text_encoder_2=encoder_2, unet=built_unet), folder)


def export_adapters(folder: Path, lora: Mapping[str, Tensor], tokens: Mapping[str, Tensor]) -> None:
    """Write the LoRA and the textual inversion in fp16 next to model_index.json."""
    for name, tensors in ((LORA_FILE, lora), (EMBEDDINGS_FILE, tokens)):
        write_tensors({key: tensor.to(torch.float16) for key, tensor in tensors.items()}, folder / name)
