"""Sharpens the autoencoder's decoder against a critic of small patches; the encoder, and so every latent, stays as it is."""

from __future__ import annotations

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
CRITIC_WEIGHT = 0.1
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


def sharpen_decoder(progress: Progress, palette: Palette, vae: AutoencoderKL, *, steps: int, seed: int) -> AutoencoderKL:
    """Train (or go on training) the decoder of a whitened autoencoder for `steps` batches and return it.

    Latents get a little noise, because those that the UNet draws are never quite those that the encoder makes. The critic's
    loss is the hinge loss; matching its features (Salimans et al. 2016, arXiv:1606.03498) does most of the work.
    """
    torch.manual_seed(seed)
    critic = PatchCritic()
    learners = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    pulls = torch.optim.AdamW(learners, weight_decay=1e-4, betas=(0.5, 0.95), fused=True)
    pushes = torch.optim.AdamW(critic.parameters(), weight_decay=1e-4, betas=(0.5, 0.95), fused=True)
    done = 0
    if (state := progress.load(STAGE)) is not None:
        vae.load_state_dict(state["vae"])
        critic.load_state_dict(state["critic"])
        pulls.load_state_dict(state["pulls"])
        pushes.load_state_dict(state["pushes"])
        done = state["step"]
    if done >= steps:
        return vae
    pictures, rng = paint_pictures(progress.folder, palette, seed), np.random.default_rng((seed, done))
    for step in range(done, steps):
        for optimizer in (pulls, pushes):
            set_learning_rate(optimizer, learning_rate(step, steps, peak=4e-4, warm_up=50))
        true = draw_crops(pictures, BATCH, CROP_PX, rng)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(true).latent_dist.mean
            drawn = vae.decode(latents + LATENT_NOISE * torch.randn_like(latents)).sample
            verdict, features = critic(drawn)
            with torch.no_grad():
                wanted = critic(true)[1]
        matched = torch.stack([functional.l1_loss(f.float(), w.float()) for f, w in zip(features, wanted, strict=True)]).mean()
        likeness = likeness_loss(drawn.float(), true)
        (likeness + MATCH_WEIGHT * matched - CRITIC_WEIGHT * verdict.float().mean()).backward()
        nn.utils.clip_grad_norm_(learners, 1.0)
        pulls.step()
        pulls.zero_grad(set_to_none=True)
        pushes.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            real, false = critic(true)[0], critic(drawn.detach())[0]
        judged = functional.relu(1 - real.float()).mean() + functional.relu(1 + false.float()).mean()
        judged.backward()
        pushes.step()
        pushes.zero_grad(set_to_none=True)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            progress.log(STAGE, step + 1, likeness=likeness.item(), matched=matched.item(), critic=judged.item())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            held = {"vae": vae.state_dict(), "critic": critic.state_dict()}
            progress.save(STAGE, {**held, "pulls": pulls.state_dict(), "pushes": pushes.state_dict(), "step": step + 1})
    return vae
