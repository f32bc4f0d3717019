"""Plain diffusers, as its documentation shows how to draw with SDXL, a LoRA and a textual inversion: what others start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from numpy.typing import NDArray
from safetensors.torch import load_file

from shared.jobs import RenderSpec
from shared.manifest import Manifest
from shared.settings import Settings
from worker.loading import build_scheduler


def load_plain(manifest: Manifest, settings: Settings, *, dtype: torch.dtype, device: str) -> StableDiffusionXLPipeline:
    """Load a model in five calls of the library: no checks, LoRA not fused. The manifest's sampler draws the same picture."""
    base = manifest.path_of(manifest.base, settings.weights_dir)
    pipeline = StableDiffusionXLPipeline.from_pretrained(base, dtype=dtype, add_watermarker=False)
    pipeline.scheduler = build_scheduler(manifest.render.scheduler)
    if manifest.lora is not None:
        file = manifest.path_of(manifest.lora.file, settings.weights_dir)
        pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name="tile")
        pipeline.set_adapters(["tile"], adapter_weights=[manifest.lora.strength])
    if manifest.textual_inversion is not None:
        _load_inversion(pipeline, manifest.path_of(manifest.textual_inversion.file, settings.weights_dir), manifest)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def draw_plain(pipeline: StableDiffusionXLPipeline, spec: RenderSpec) -> NDArray[np.uint8]:
    """Draw one picture, uint8 of shape height x width x 3."""
    picture = pipeline(
        spec.prompt,
        negative_prompt=spec.negative_prompt,
        num_inference_steps=spec.num_inference_steps,
        guidance_scale=spec.guidance_scale,
        width=spec.width_px,
        height=spec.height_px,
        generator=torch.Generator("cpu").manual_seed(spec.seed),
    ).images[0]
    return np.asarray(picture)


def psnr_db(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two pictures in dB; infinite for equal ones."""
    error = float(np.mean((first.astype(np.float64) - second) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def _load_inversion(pipeline: StableDiffusionXLPipeline, file: Path, manifest: Manifest) -> None:
    assert manifest.textual_inversion is not None
    # The widths tell which tensor is whose; the encoders of SDXL, and of mini, differ in theirs.
    rows = {tensor.shape[1]: tensor for tensor in load_file(file).values()}
    for encoder, tokenizer in ((pipeline.text_encoder, pipeline.tokenizer), (pipeline.text_encoder_2, pipeline.tokenizer_2)):
        pipeline.load_textual_inversion(
            list(rows[encoder.config.hidden_size]),
            token=list(manifest.textual_inversion.tokens),
            text_encoder=encoder,
            tokenizer=tokenizer,
        )
