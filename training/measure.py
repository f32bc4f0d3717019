"""Draws small pictures during training and measures how far their colours are from the ordered mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray

from shared.palette import Palette
from training.architecture import build_scheduler
from training.conditioning import TextEncoders
from training.mixes import PRODUCT_TEMPLATE, Mix, draw_mix, mix_text
from worker.painter import to_linear

_CEMENT_SRGB = (158, 155, 148)
# Bjorn Ottosson, "A perceptual color space for image processing" (2020): linear sRGB -> cone response -> OKLab.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_LIGHTNESS_WEIGHT = 0.7


def oklab(srgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Turn sRGB bytes [..., 3] into OKLab."""
    cones: NDArray[np.float64] = np.cbrt(to_linear(srgb.astype(np.float32)) @ _TO_CONES.T) @ _TO_OKLAB.T
    return cones


def nearest_shares(pixels: NDArray[np.uint8], mix: Mix, *, cement: bool) -> NDArray[np.float64]:
    """Return each colour's share of the pixels [size, size, 3], every pixel counted for the nearest of the ordered colours.

    Lightness counts less than hue, because relief shades the granules. With `cement`, pixels nearest to cement do not count.
    """
    anchors = [color.srgb for color, _ in mix] + ([_CEMENT_SRGB] if cement else [])
    weights = np.array([_LIGHTNESS_WEIGHT, 1.0, 1.0])
    seen = oklab(pixels).reshape(-1, 3) * weights
    known = oklab(np.array(anchors, np.uint8)) * weights
    nearest = np.argmin(((seen[:, None] - known[None]) ** 2).sum(-1), axis=1)
    counts = np.bincount(nearest, minlength=len(anchors))[: len(mix)]
    return np.asarray(counts / max(1, counts.sum()))


def draw_pixels(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    texts: TextEncoders,
    prompts: Sequence[str],
    *,
    side: int,
    steps: int,
    seed: int,
) -> NDArray[np.uint8]:
    """Draw one picture a prompt without guidance, uint8 [n, 8 side, 8 side, 3]."""
    scheduler = build_scheduler()
    scheduler.set_timesteps(steps)
    latents = torch.randn(len(prompts), 4, side, side, generator=torch.Generator().manual_seed(seed))
    sizes = torch.tensor([[8.0 * side, 8.0 * side, 0, 0, 8.0 * side, 8.0 * side]]).repeat(len(prompts), 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        hidden, pooled = texts.encode(prompts)
        for time in scheduler.timesteps:
            guess = unet(latents, time, hidden, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}).sample
            latents = scheduler.step(guess.float(), time, latents).prev_sample
        pixels = vae.decode(latents / vae.config.scaling_factor).sample.float()
    return np.asarray(((pixels / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).to(torch.uint8).numpy())


@dataclass(frozen=True, slots=True)
class CompositionProbe:
    """Measures the same few held-out mixes again and again; called with a UNet and text encoders, it returns figures to log."""

    vae: AutoencoderKL
    palette: Palette
    rubber: bool
    pictures: int = 16
    side: int = 64
    seed: int = 90_001

    def __call__(self, unet: UNet2DConditionModel, texts: TextEncoders) -> dict[str, float]:
        """Return `tv`, the mean total-variation distance between ordered and drawn shares, and its 90th percentile."""
        rng = np.random.default_rng(self.seed)
        mixes = [draw_mix(rng, self.palette, most=4, least_share=0.05) for _ in range(self.pictures)]
        template = PRODUCT_TEMPLATE if self.rubber else "terrazzo floor, {mix}"
        prompts = [template.format(mix=mix_text(mix)) for mix in mixes]
        pixels = draw_pixels(unet, self.vae, texts, prompts, side=self.side, steps=12, seed=self.seed)
        distances = []
        for picture, mix in zip(pixels, mixes, strict=True):
            drawn = nearest_shares(picture, mix, cement=not self.rubber)
            distances.append(0.5 * float(np.abs(drawn - [share for _, share in mix]).sum()))
        return {"tv": float(np.mean(distances)), "tv_p90": float(np.quantile(distances, 0.9))}
