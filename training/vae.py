"""Trains the autoencoder on painted crops: first both halves on likeness, later the decoder alone against a critic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from shared.palette import Palette
from training.architecture import build_vae
from training.data import STYLES, paint_shard
from training.progress import Progress, learning_rate, set_learning_rate

STAGE = "vae"
WHITE = "vae_white"
CROP_PX = 96
BATCH = 4
KL_WEIGHT = 2e-4
ANCHOR_WEIGHT = 0.5
_TILES = 150
_TILE_PX = 512


def paint_pictures(folder: Path, palette: Palette, seed: int) -> NDArray[np.uint8]:
    """Paint the pictures the autoencoder learns from, uint8 [300, 512, 512, 3], or read those that lie in `folder`."""
    path = folder / "pictures.npy"
    if path.exists():
        return np.asarray(np.load(path, mmap_mode="r"))
    shards = [paint_shard(style, _TILES, _TILE_PX, seed + turn, palette) for turn, style in enumerate(STYLES)]
    pictures = np.concatenate([shard.pixels for shard in shards])
    np.save(path, pictures)
    return pictures


def draw_crops(pictures: NDArray[np.uint8], batch: int, crop_px: int, rng: np.random.Generator) -> Tensor:
    """Return random crops as float [batch, 3, crop_px, crop_px] in -1 to 1."""
    limit = pictures.shape[1] - crop_px
    crops = []
    for _ in range(batch):
        top, left = rng.integers(0, limit + 1, 2)
        crops.append(pictures[rng.integers(len(pictures)), top : top + crop_px, left : left + crop_px])
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    return (pixels.float() / 127.5 - 1).contiguous()


def likeness_loss(drawn: Tensor, true: Tensor) -> Tensor:
    """Return the mean absolute difference of the pixels, of their slopes, and of their means over 8 x 8 (the colours)."""
    loss = functional.l1_loss(drawn, true)
    for axis in (2, 3):
        loss = loss + 0.5 * functional.l1_loss(drawn.diff(dim=axis), true.diff(dim=axis))
    return loss + 2 * functional.l1_loss(functional.avg_pool2d(drawn, 8), functional.avg_pool2d(true, 8))


def mean_colors(pixels: Tensor) -> Tensor:
    """Return luma and two colour differences of each 8 x 8 block, scaled to about unit deviation: [n, 3, height/8, width/8].

    Three of the four latent channels are held to these, so that colour is there from the first steps on; the fourth is free
    to say where the edges run.
    """
    red, green, blue = functional.avg_pool2d(pixels, 8).unbind(1)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return torch.stack([2.2 * luma, 3.5 * (blue - luma), 3.5 * (red - luma)], dim=1)


def start_linear(vae: AutoencoderKL) -> None:
    """Silence the second convolution of every residual block, so that training starts from a shallow network."""
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if ".conv2." in name:
                parameter.zero_()


def train_vae(progress: Progress, palette: Palette, *, steps: int, seed: int) -> AutoencoderKL:
    """Train (or go on training) the autoencoder for `steps` batches and return it, latents whitened."""
    torch.manual_seed(seed)
    vae = build_vae()  # the plain memory format: on a CPU, group norm runs backwards a third quicker in it
    start_linear(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), weight_decay=1e-4, betas=(0.9, 0.98), fused=True)
    done = 0
    if (state := progress.load(STAGE)) is not None:
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    if done < steps:
        pictures = paint_pictures(progress.folder, palette, seed)
        rng = np.random.default_rng((seed, done))
    for step in range(done, steps):
        set_learning_rate(optimizer, learning_rate(step, steps, peak=2e-3, floor=0.03))
        true = draw_crops(pictures, BATCH, CROP_PX, rng)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(true).latent_dist
            drawn = vae.decode(posterior.sample()).sample
        likeness = likeness_loss(drawn.float(), true)
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        anchored = functional.mse_loss(posterior.mean[:, :3].float(), mean_colors(true))
        (likeness + KL_WEIGHT * divergence + ANCHOR_WEIGHT * anchored).backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            progress.log(STAGE, step + 1, likeness=likeness.item(), kl=divergence.item(), anchored=anchored.item())
        if (step + 1) % 200 == 0 or step + 1 == steps:
            progress.save(STAGE, {"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1})
    return _whitened(progress, palette, vae, seed)


def load_vae(folder: Path) -> AutoencoderKL:
    """Return the autoencoder of an exported checkpoint in float32."""
    vae = build_vae(json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))["scaling_factor"])
    vae.load_state_dict(load_file(folder / "vae" / "diffusion_pytorch_model.safetensors"))
    return vae


def _whitened(progress: Progress, palette: Palette, vae: AutoencoderKL, seed: int) -> AutoencoderKL:
    """Whiten the latents once; everything after this stage starts from the saved result."""
    if (state := progress.load(WHITE)) is not None:
        vae.load_state_dict(state["vae"])
        return vae
    whiten_latents(vae, paint_pictures(progress.folder, palette, seed), np.random.default_rng(seed))
    progress.save(WHITE, {"vae": vae.state_dict()})
    return vae


def whiten_latents(vae: AutoencoderKL, pictures: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Shift and scale the latents of `pictures` to mean 0 and standard deviation 1 a channel, inside the 1 x 1 convolutions.

    What the decoder receives stays the same, so pictures do not change; the UNet gets the distribution it starts from.
    """
    with torch.no_grad():
        means = torch.cat([vae.encode(draw_crops(pictures, 4, 256, rng)).latent_dist.mean for _ in range(16)])
        mean, deviation = means.mean((0, 2, 3)), means.std((0, 2, 3))
        channels = len(mean)
        into, out = vae.quant_conv, vae.post_quant_conv
        out.bias += out.weight[:, :, 0, 0] @ mean
        out.weight *= deviation[None, :, None, None]
        into.weight[:channels] /= deviation[:, None, None, None]
        into.bias[:channels] = (into.bias[:channels] - mean) / deviation
        into.bias[channels:] -= 2 * deviation.log()
