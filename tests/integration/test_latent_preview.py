"""The rough picture of latents, with mini's own autoencoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from shared.manifest import load_manifest
from training.architecture import MODELS
from worker.guided import encode_pixels
from worker.latent_preview import LATENT_PX, LatentPreview
from worker.painter import paint_tile
from worker.seamless import circular_padding

SIDE_PX = 256


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(MODELS / "mini/vae").eval()


def test_latents_look_like_the_picture_that_they_are_of(vae: AutoencoderKL) -> None:
    palette = load_manifest(MODELS / "rubber-tile-mini.toml").colors
    preview = LatentPreview(vae, palette.colors)
    for names in (("red", "black", "pearl"), ("dark green", "yellow"), ("white",)):
        shares = [(palette.find(name), 1.0) for name in names]
        tile = paint_tile(shares, rng=np.random.default_rng(99), size_px=SIDE_PX).pixels
        shown = preview.pixels(encode_pixels(vae, tile)[0]).astype(float)
        side = SIDE_PX // LATENT_PX
        assert shown.shape == (side, side, 3)
        means = tile.reshape(side, LATENT_PX, side, LATENT_PX, 3).mean(axis=(1, 3))
        assert np.abs(shown.mean(axis=(0, 1)) - means.mean(axis=(0, 1))).max() < 10
        assert np.abs(shown - means).mean() < 16
        assert np.corrcoef(shown.ravel(), means.ravel())[0, 1] > 0.9


def test_the_map_is_fitted_once(vae: AutoencoderKL, monkeypatch: pytest.MonkeyPatch) -> None:
    preview = LatentPreview(vae, load_manifest(MODELS / "rubber-tile-mini.toml").colors.colors)
    latents = torch.zeros(4, 4, 6)
    first = preview.pixels(latents)
    monkeypatch.setattr(preview, "_fit", None)
    assert first.shape == (4, 6, 3) and np.array_equal(preview.pixels(latents), first)


def test_the_map_is_the_same_whether_or_not_the_first_picture_is_seamless(vae: AutoencoderKL) -> None:
    colors, latents = load_manifest(MODELS / "rubber-tile-mini.toml").colors.colors, torch.randn(4, 4, 6)
    plain = LatentPreview(vae, colors).pixels(latents)
    with circular_padding(vae, vae):
        first = LatentPreview(vae, colors)
        assert np.array_equal(first.pixels(latents), plain)
        assert {module.padding_mode for module in vae.modules() if getattr(module, "padding", 0) == (1, 1)} == {"circular"}
    assert np.array_equal(first.pixels(latents), plain)
