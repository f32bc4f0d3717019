"""Sharpens the autoencoder's decoder against a critic of small patches; the encoder, and so every latent, stays as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from shared.palette import Palette
from training.progress import Progress, learning_rate, set_learning_rate
from training.vae import draw_crops, likeness_loss, paint_pictures

STAGE = "critic"
CROP_PX = 128
BATCH = 4
CRITIC_WEIGHT = 0.03
QUIET = 0.45
LAST_QUIET = 0.87
MATCH_WEIGHT = 1.0
LATENT_NOISE = 0.08


class PatchCritic(nn.Module):
    """Judges patches of 34 pixels; `forward` returns the verdicts [n, 1, h, w] and the features they were made from."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 64)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1) for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.verdict = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge float pixels [n, 3, height, width] in -1 to 1."""
        features = []
        for layer in self.layers:
            pixels = functional.leaky_relu(layer(pixels), 0.2)
            features.append(pixels)
        return self.verdict(pixels), features


def critic_weight(step: int, steps: int) -> float:
    """Return the weight of the critic's verdict: none for the first 45 % of the steps, then rising; none in the last 13 %.

    The last steps take away the fine dots with which a decoder pleases a critic.
    """
    part = step / steps
    return CRITIC_WEIGHT * (part - QUIET) / (1 - QUIET) if QUIET <= part < LAST_QUIET else 0.0


class Sharpener:
    """Decoder and critic with their optimizers, one step at a time.

    Latents get a little noise, because those that the UNet draws are never quite those that the encoder makes. The critic's
    loss is the hinge loss; the decoder also matches its features (Salimans et al. 2016, arXiv:1606.03498).
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae, self.critic = vae, PatchCritic()
        self.learners = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
        self.pulls = torch.optim.AdamW(self.learners, weight_decay=1e-4, betas=(0.9, 0.98), fused=True)
        self.pushes = torch.optim.AdamW(self.critic.parameters(), weight_decay=1e-4, betas=(0.5, 0.95), fused=True)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a checkpoint needs."""
        return {part: getattr(self, part).state_dict() for part in ("vae", "critic", "pulls", "pushes")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""
        for part in ("vae", "critic", "pulls", "pushes"):
            getattr(self, part).load_state_dict(state[part])

    def step(self, true: Tensor, weight: float) -> dict[str, float]:
        """Move the decoder once towards `true` [n, 3, h, w], past the critic if that has any weight; return the losses."""
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = self.vae.encode(true).latent_dist.mean
            drawn = self.vae.decode(latents + LATENT_NOISE * torch.randn_like(latents)).sample
        loss = likeness = likeness_loss(drawn.float(), true)
        figures = {"likeness": likeness.item()}
        if weight > 0:
            judged = self._teach_critic(true, drawn.detach())
            with torch.autocast("cpu", torch.bfloat16):
                verdict, features = self.critic(drawn)
                with torch.no_grad():
                    wanted = self.critic(true)[1]
            matched = torch.stack(
                [functional.l1_loss(f.float(), w.float()) for f, w in zip(features, wanted, strict=True)]
            ).mean()
            loss = likeness + MATCH_WEIGHT * matched - weight * verdict.float().mean()
            figures |= {"matched": matched.item(), "critic": judged}
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.learners, 1.0)
        self.pulls.step()
        self.pulls.zero_grad(set_to_none=True)
        return figures

    def _teach_critic(self, true: Tensor, drawn: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            real, false = self.critic(true)[0], self.critic(drawn)[0]
        judged = functional.relu(1 - real.float()).mean() + functional.relu(1 + false.float()).mean()
        self.pushes.zero_grad(set_to_none=True)
        torch.autograd.backward(judged)
        self.pushes.step()
        return float(judged.item())


def sharpen_decoder(progress: Progress, palette: Palette, vae: AutoencoderKL, *, steps: int, seed: int) -> AutoencoderKL:
    """Train (or go on training) the decoder of a whitened autoencoder for `steps` batches and return it."""
    torch.manual_seed(seed)
    sharpener, done = Sharpener(vae), 0
    if (state := progress.load(STAGE)) is not None:
        sharpener.load_state_dict(state)
        done = state["step"]
    if done >= steps:
        return vae
    pictures, rng = paint_pictures(progress.folder, palette, seed), np.random.default_rng((seed, done))
    for step in range(done, steps):
        set_learning_rate(sharpener.pulls, learning_rate(step, steps, peak=1e-3, warm_up=100))
        set_learning_rate(sharpener.pushes, 3e-4)
        figures = sharpener.step(draw_crops(pictures, BATCH, CROP_PX, rng), critic_weight(step, steps))
        if (step + 1) % 50 == 0 or step + 1 == steps:
            progress.log(STAGE, step + 1, **figures)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            progress.save(STAGE, {**sharpener.state_dict(), "step": step + 1})
    return vae
