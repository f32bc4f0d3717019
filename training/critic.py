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
QUIET = 0.30
LAST_QUIET = 0.92
MATCH_WEIGHT = 1.0
LATENT_NOISE = 0.08
GRAIN_WEIGHT = 0.06
GRAIN_WINDOW_PX = 16
GRAIN_FLOOR = 1e-5
GRID_WEIGHT = 100.0
GRID_PX = 8


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
    """Return the weight of the critic's verdict: none for the first 30 % of the steps, then rising; none in the last 8 %.

    The last steps take away the fine dots with which a decoder pleases a critic.
    """
    part = step / steps
    return CRITIC_WEIGHT * (part - QUIET) / (1 - QUIET) if QUIET <= part < LAST_QUIET else 0.0


def grain_loss(drawn: Tensor, true: Tensor) -> Tensor:
    """Return how far the fine grain of two batches of pixels [n, 3, h, w] is apart, in nepers of power.

    Likeness alone teaches a decoder to leave out what it cannot know, and so the grain of a granule's face. This asks for
    grain of the right strength in every place: the power in small windows, band by band. Over all windows together every
    single frequency must agree too, so that no pattern passes for grain.
    """
    power, wanted = _window_power(drawn), _window_power(true)
    local = functional.l1_loss(_log(power.flatten(-2) @ _BANDS), _log(wanted.flatten(-2) @ _BANDS))
    overall = functional.l1_loss(_log(power.mean((0, 1, 2))), _log(wanted.mean((0, 1, 2))))
    return local + overall


def _log(power: Tensor) -> Tensor:
    return torch.log(power + GRAIN_FLOOR)


def grid_loss(drawn: Tensor, true: Tensor) -> Tensor:
    """Return the mean square of what all 8 x 8 blocks of a batch have in common: the grid that a decoder may leave.

    It is looked for in the luma and in how much neighbouring pixels differ. The batch's sides are multiples of 8.
    """
    drawn, true = _luma(drawn), _luma(true)
    planes = [drawn - true]
    for axis in (1, 2):
        planes.append((drawn - drawn.roll(1, axis)).abs() - (true - true.roll(1, axis)).abs())
    return torch.stack([_in_common(plane) for plane in planes]).sum()


def _in_common(plane: Tensor) -> Tensor:
    count, height, width = plane.shape
    blocks = plane.reshape(count, height // GRID_PX, GRID_PX, width // GRID_PX, GRID_PX).mean((0, 1, 3))
    return (blocks - blocks.mean()).square().mean()


def _luma(pixels: Tensor) -> Tensor:
    return 0.2126 * pixels[:, 0] + 0.7152 * pixels[:, 1] + 0.0722 * pixels[:, 2]


def _window_power(pixels: Tensor) -> Tensor:
    """Return the power spectra [n, rows, columns, 16, 9] of overlapping windows of 16 pixels."""
    side, step = GRAIN_WINDOW_PX, GRAIN_WINDOW_PX // 2
    windows = _luma(pixels).unfold(1, side, step).unfold(2, side, step)
    taper = torch.hann_window(side, periodic=False)
    spectra: Tensor = torch.fft.rfft2((windows - windows.mean((-2, -1), keepdim=True)) * taper[:, None] * taper)
    return spectra.abs().square()


def _ring_bands() -> Tensor:
    """Return [16 x 9, 5]: which frequencies of a window make up each of five rings, as weights that sum to 1."""
    rows, columns = torch.fft.fftfreq(GRAIN_WINDOW_PX), torch.fft.rfftfreq(GRAIN_WINDOW_PX)
    ring = torch.bucketize(torch.hypot(rows[:, None], columns[None, :]).flatten(), torch.tensor([0.09, 0.16, 0.25, 0.36]))
    members = functional.one_hot(ring, 5).float()
    members[0] = 0  # the window's mean is not grain
    return members / members.sum(0)


_BANDS = _ring_bands()


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
        likeness, grain = likeness_loss(drawn.float(), true), grain_loss(drawn.float(), true)
        grid = grid_loss(drawn.float(), true)
        loss = likeness + GRAIN_WEIGHT * grain + GRID_WEIGHT * grid
        figures = {"likeness": likeness.item(), "grain": grain.item(), "grid": grid.item()}
        if weight > 0:
            judged = self._teach_critic(true, drawn.detach())
            with torch.autocast("cpu", torch.bfloat16):
                verdict, features = self.critic(drawn)
                with torch.no_grad():
                    wanted = self.critic(true)[1]
            matched = torch.stack(
                [functional.l1_loss(f.float(), w.float()) for f, w in zip(features, wanted, strict=True)]
            ).mean()
            loss = loss + MATCH_WEIGHT * matched - weight * verdict.float().mean()
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
