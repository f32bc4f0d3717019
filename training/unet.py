"""Trains the UNet together with both text encoders on terrazzo: the base model, which knows no rubber."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from shared.palette import Palette
from training.architecture import build_scheduler, build_unet
from training.conditioning import TextEncoders
from training.data import LatentTiles
from training.mixes import plain_words, terrazzo_caption
from training.progress import Progress, learning_rate, set_learning_rate

STAGE = "unet"
SIZES_PX = (256, 512, 768, 1024)
DROPOUT = 0.10


@dataclass(frozen=True, slots=True)
class Phase:
    """Part of a stage: up to step `until`, batches of `batch` crops of `side` latents."""

    until: int
    side: int
    batch: int


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the UNet is told of a batch: hidden states [n, 77, 96] and the pooled embedding [n, 64]."""

    hidden: Tensor
    pooled: Tensor


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """Return the phase that a step belongs to."""
    return next((phase for phase in phases if step < phase.until), phases[-1])


class VelocityLoss:
    """The v-prediction loss (Salimans and Ho 2022, arXiv:2202.00512) at all noise levels of mini's scheduler, equally often."""

    def __init__(self) -> None:
        self.alphas_cumprod = build_scheduler().alphas_cumprod

    def __call__(self, unet: UNet2DConditionModel, latents: Tensor, told: Conditioning, rng: np.random.Generator) -> Tensor:
        """Return the mean squared error for latents [n, 4, side, side] at random times."""
        count = len(latents)
        # One time from each of n equal intervals: less noise in the loss than n independent draws.
        times = torch.from_numpy((rng.permutation(count) + rng.random(count)) * len(self.alphas_cumprod) / count).long()
        signal = self.alphas_cumprod[times].sqrt().view(-1, 1, 1, 1)
        spread = (1 - self.alphas_cumprod[times]).sqrt().view(-1, 1, 1, 1)
        noise = torch.from_numpy(rng.standard_normal(latents.shape, np.float32))
        sizes = torch.tensor(rng.choice(SIZES_PX, count), dtype=torch.float32)
        nothing = torch.zeros_like(sizes)
        added = {"text_embeds": told.pooled, "time_ids": torch.stack([sizes, sizes, nothing, nothing, sizes, sizes], dim=1)}
        with torch.autocast("cpu", torch.bfloat16):
            guess = unet(signal * latents + spread * noise, times, told.hidden, added_cond_kwargs=added).sample
        return functional.mse_loss(guess.float(), signal * noise - spread * latents)


def drop_conditioning(told: Conditioning, rng: np.random.Generator) -> Conditioning:
    """Replace a tenth of a batch's conditioning by zeros: what SDXL's pipeline gives as the empty negative prompt."""
    kept = torch.from_numpy((rng.random(len(told.hidden)) >= DROPOUT).astype(np.float32))
    return Conditioning(told.hidden * kept[:, None, None], told.pooled * kept[:, None])


def trainable_unet(start: Path | None = None) -> UNet2DConditionModel:
    """Return a UNet whose attention is written out: on a CPU, quicker backwards than the fused kernel.

    It is untrained, or has the weights of the exported checkpoint in `start`.
    """
    unet = build_unet()
    if start is not None:
        unet.load_state_dict(load_file(start / "unet" / "diffusion_pytorch_model.safetensors"))
    unet.set_attn_processor(AttnProcessor())
    return unet


def train_unet(
    progress: Progress,
    palette: Palette,
    texts: TextEncoders,
    tiles: LatentTiles,
    *,
    phases: Sequence[Phase],
    seed: int,
    measure: Callable[[UNet2DConditionModel, TextEncoders], dict[str, float]],
    start: Path | None = None,
) -> UNet2DConditionModel:
    """Train (or go on training) UNet and `texts` to the end of the last phase; `measure` is logged every 500 steps."""
    torch.manual_seed(seed)
    unet = trainable_unet(start)
    groups = [{"params": unet.parameters(), "scale": 1.0}, {"params": texts.parameters(), "scale": 0.15}]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4, betas=(0.9, 0.98), fused=True)
    done = 0
    if (state := progress.load(STAGE)) is not None:
        unet.load_state_dict(state["unet"])
        texts.load_state_dict(state["texts"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    rng = np.random.default_rng((seed, done))
    words = plain_words(texts.tokenizer.get_vocab())
    loss_of, steps, recent = VelocityLoss(), phases[-1].until, []
    for step in range(done, steps):
        phase = phase_at(phases, step)
        set_learning_rate(optimizer, learning_rate(step, steps, peak=1.2e-3))
        latents, mixes = tiles.draw(phase.batch, phase.side, palette, rng)
        captions = [terrazzo_caption(mix, rng, words) for mix in mixes]
        told = Conditioning(*texts.encode(captions))
        loss = loss_of(unet, latents, drop_conditioning(told, rng), rng)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_([*unet.parameters(), *texts.parameters()], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            progress.log(STAGE, step + 1, loss=float(np.mean(recent)), side=phase.side)
            recent.clear()
        if (step + 1) % 250 == 0 or step + 1 == steps:
            held = {"unet": unet.state_dict(), "texts": texts.state_dict(), "optimizer": optimizer.state_dict()}
            progress.save(STAGE, {**held, "step": step + 1})
        if (step + 1) % 500 == 0 or step + 1 == steps:
            progress.log(STAGE, step + 1, **measure(unet, texts))
    return unet
