"""What a device can do and what a picture asks of it: measured rate of matrix products, counted arithmetic, peak memory."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

REPEATS = 30
TEXT_TOKENS = 77
LATENT_PX = 8


def matmul_tflops(device: torch.device, *, size: int) -> float:
    """The best rate, in TFLOP/s, of bfloat16 products of square matrices of this size; 2 x size^3 operations each."""
    first, second = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    best_s = float("inf")
    for _ in range(REPEATS):
        synchronize(device)
        started_s = time.perf_counter()
        torch.matmul(first, second)
        synchronize(device)
        best_s = min(best_s, time.perf_counter() - started_s)
    return 2 * size**3 / best_s / 1e12


def flops_of(pipeline: Any, width_px: int, height_px: int) -> tuple[float, float]:
    """Count the operations of one UNet call for one row, and of one decode. Works on models of the `meta` device."""
    unet, vae = pipeline.unet, pipeline.vae
    latents = torch.empty(1, 4, height_px // LATENT_PX, width_px // LATENT_PX, device=unet.device)
    text = torch.empty(1, TEXT_TOKENS, unet.config.cross_attention_dim, device=unet.device)
    pooled = torch.empty(1, pipeline.text_encoder_2.config.projection_dim, device=unet.device)
    added = {"text_embeds": pooled, "time_ids": torch.empty(1, 6, device=unet.device)}
    timestep = torch.empty(1, device=unet.device)
    with torch.no_grad():
        with FlopCounterMode(display=False) as step:
            unet(latents, timestep, encoder_hidden_states=text, added_cond_kwargs=added)
        with FlopCounterMode(display=False) as decode:
            vae.decode(latents)
    return float(step.get_total_flops()), float(decode.get_total_flops())


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Count peak memory anew from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_gib(device: torch.device) -> float | None:
    """The most memory that tensors took since `reset_peak`; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
