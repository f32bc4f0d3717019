"""The painted training pictures on disk: pixels for the autoencoder, latents with block counts for the UNet.

A shard is one `.npz` file of many tiles of one size and style. `counts` holds, for every block of 8 x 8 pixels (one
latent), how many pixels show each of the tile's colours, so that the exact mix of any crop is a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from shared.palette import Color, Palette
from training.mixes import Mix, draw_mix
from training.terrazzo import paint_terrazzo
from worker.painter import GAP, Light, PaintedTile, color_granules, cut_granules, light_granules, share_out

Style = Literal["rubber", "terrazzo"]
STYLES: tuple[Style, ...] = ("rubber", "terrazzo")
BLOCK_PX = 8
MOST_COLORS = 5
_RECOLORINGS = 3


@dataclass(frozen=True, slots=True)
class Shard:
    """Tiles of one size.

    `pixels` is uint8 [n, size, size, 3], `counts` uint8 [n, size/8, size/8, 5], `colors` int8 [n, 5] (-1: none).
    """

    pixels: NDArray[np.uint8]
    counts: NDArray[np.uint8]
    colors: NDArray[np.int8]


def paint_shard(style: Style, tiles: int, size_px: int, seed: int, palette: Palette) -> Shard:
    """Paint `tiles` pictures of random mixes. Rubber tiles share a relief in threes, which makes painting quicker."""
    rng = np.random.default_rng(seed)
    mixes = [draw_mix(rng, palette) for _ in range(tiles)]
    painted = (
        _paint_rubber(mixes, size_px, rng)
        if style == "rubber"
        else [paint_terrazzo(mix, rng=rng, size_px=size_px) for mix in mixes]
    )
    index = {color.code: i for i, color in enumerate(palette.colors)}
    colors = np.full((tiles, MOST_COLORS), -1, np.int8)
    for row, mix in zip(colors, mixes, strict=True):
        row[: len(mix)] = [index[color.code] for color, _ in mix]
    return Shard(np.stack([tile.pixels for tile in painted]), np.stack([block_counts(tile.labels) for tile in painted]), colors)


def _paint_rubber(mixes: Sequence[Mix], size_px: int, rng: np.random.Generator) -> list[PaintedTile]:
    painted = []
    for turn, mix in enumerate(mixes):
        if turn % _RECOLORINGS == 0:
            granules = cut_granules(size_px, 34.0, rng)
            lighting = light_granules(granules, Light(), rng)
        color_of = share_out(granules, lighting.face, [share for _, share in mix], rng)
        pixels = color_granules(granules, lighting, [color.srgb for color, _ in mix], color_of, rng)
        painted.append(PaintedTile(pixels, np.where(lighting.face, color_of[granules.ids], GAP).astype(np.int8)))
    return painted


def block_counts(labels: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Count, for each 8 x 8 block, the pixels of each label 0 to 4."""
    side = labels.shape[0] // BLOCK_PX
    blocks = labels.reshape(side, BLOCK_PX, side, BLOCK_PX)
    return np.stack([(blocks == i).sum(axis=(1, 3)) for i in range(MOST_COLORS)], axis=-1).astype(np.uint8)


def crop_mix(
    counts: NDArray[np.uint8], colors: NDArray[np.int8], palette: Palette, least_share: float = 0.008
) -> list[tuple[Color, float]]:
    """Return the mix that a crop really shows; colours below `least_share` of it go unnamed."""
    area = counts.reshape(-1, MOST_COLORS).sum(0).astype(np.float64)
    shares = area / area.sum()
    shares[shares < least_share] = 0
    shares /= shares.sum()
    return [(palette.colors[colors[i]], float(share)) for i, share in enumerate(shares) if share > 0]


@dataclass(frozen=True, slots=True)
class LatentTiles:
    """Encoded tiles of one style: `latents` float16 [n, 4, side, side], with the counts and colours of their shards."""

    latents: NDArray[np.float16]
    counts: NDArray[np.uint8]
    colors: NDArray[np.int8]

    def draw(self, batch: int, side: int, palette: Palette, rng: np.random.Generator) -> tuple[Tensor, list[Mix]]:
        """Return random crops of `side` latents, float32 [batch, 4, side, side], and the mix that each of them shows."""
        crops, mixes = [], []
        span = self.latents.shape[-1] - side
        for tile in rng.integers(len(self.latents), size=batch):
            top, left = rng.integers(0, span + 1, 2)
            rows, columns = slice(top, top + side), slice(left, left + side)
            crops.append(self.latents[tile, :, rows, columns])
            mixes.append(crop_mix(self.counts[tile, rows, columns], self.colors[tile], palette))
        return torch.from_numpy(np.stack(crops)).float(), mixes


@dataclass(frozen=True, slots=True)
class Series:
    """A set of tiles to paint: `shards` files of `tiles` pictures, `size_px` squared, from seeds `seed`, `seed` + 1, ..."""

    style: Style
    size_px: int
    shards: int
    tiles: int
    seed: int

    def paths(self, folder: Path, kind: str) -> list[Path]:
        """Return where the shards of a kind ("pixels", "latents") lie."""
        return [folder / f"{kind}-{self.style}-{self.size_px}-{index:03}.npz" for index in range(self.shards)]


def paint_series(folder: Path, series: Series, palette: Palette, workers: int = 2) -> None:
    """Paint the shards that are not in `folder` yet, in processes of their own: about a tenth of a second for 512 x 512."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(_paint_to, path, series, series.seed + index, palette)
            for index, path in enumerate(series.paths(folder, "pixels"))
            if not path.exists()
        ]
        for job in jobs:
            job.result()


def _paint_to(path: Path, series: Series, seed: int, palette: Palette) -> None:
    shard = paint_shard(series.style, series.tiles, series.size_px, seed, palette)
    _save(path, pixels=shard.pixels, counts=shard.counts, colors=shard.colors)


def _save(path: Path, **arrays: NDArray[Any]) -> None:
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    draft.replace(path)


def cache_latents(folder: Path, series: Series, vae: AutoencoderKL, palette: Palette) -> LatentTiles:
    """Return the encoded tiles of a series; what lies in `folder` is read, the rest is painted and encoded."""
    paint_series(folder, series, palette)
    for source, target in zip(series.paths(folder, "pixels"), series.paths(folder, "latents"), strict=True):
        if not target.exists():
            shard = np.load(source)
            _save(target, latents=encode_pixels(vae, shard["pixels"]), counts=shard["counts"], colors=shard["colors"])
    parts = [np.load(path) for path in series.paths(folder, "latents")]
    return LatentTiles(*(np.concatenate([part[name] for part in parts]) for name in ("latents", "counts", "colors")))


def encode_pixels(vae: AutoencoderKL, pixels: NDArray[np.uint8], batch: int = 2) -> NDArray[np.float16]:
    """Return the means of the latents of uint8 [n, size, size, 3], times the scaling factor."""
    encoded = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(pixels), batch):
            images = torch.from_numpy(pixels[start : start + batch]).permute(0, 3, 1, 2).float() / 127.5 - 1
            encoded.append(vae.encode(images.contiguous()).latent_dist.mean.float() * vae.config.scaling_factor)
    return torch.cat(encoded).numpy().astype(np.float16)
