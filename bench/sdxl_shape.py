"""SDXL's full-size shape with random weights, built on the device: as much work as the real model, and nothing to download.

The shapes are those of the configuration files of stabilityai/stable-diffusion-xl-base-1.0. The tokenizer is the one that lies
beside mini, which is CLIP's own.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from shared.manifest import Scheduler
from shared.settings import REPOSITORY
from worker.base_model import load_tokenizer
from worker.loading import build_scheduler

UNET: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}
TEXT: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768, "hidden_act": "quick_gelu", "vocab_size": 49408,
}  # fmt: skip
TEXT_2: dict[str, Any] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "projection_dim": 1280, "hidden_act": "gelu", "vocab_size": 49408,
}  # fmt: skip

SMALL_UNET = UNET | {
    "block_out_channels": (32, 32, 64),
    "transformer_layers_per_block": (1, 1, 1),
    "attention_head_dim": (1, 2, 2),
    "cross_attention_dim": 64,
    "projection_class_embeddings_input_dim": 32 + 6 * 256,
}
SMALL_VAE = VAE | {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
SMALL_TEXT = TEXT | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
SMALL_TEXT_2 = SMALL_TEXT | {"projection_dim": 32, "hidden_act": "gelu"}


def build_random(device: torch.device, *, small: bool = False, seed: int = 0) -> StableDiffusionXLPipeline:
    """Return a pipeline in float32 on `device` whose weights a seed decides. `small` is SDXL in kind, and runs on a CPU."""
    torch.manual_seed(seed)
    with device:
        unet = UNet2DConditionModel(**(SMALL_UNET if small else UNET)).eval()
        vae = AutoencoderKL(**(SMALL_VAE if small else VAE)).eval()
        text: Any = CLIPTextModel(CLIPTextConfig(**(SMALL_TEXT if small else TEXT)))
        text_2: Any = CLIPTextModelWithProjection(CLIPTextConfig(**(SMALL_TEXT_2 if small else TEXT_2)))
    tokenizers = REPOSITORY / "models" / "mini"
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text.eval(),
        text_encoder_2=text_2.eval(),
        tokenizer=load_tokenizer(tokenizers / "tokenizer"),
        tokenizer_2=load_tokenizer(tokenizers / "tokenizer_2"),
        unet=unet,
        scheduler=build_scheduler(Scheduler()),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
