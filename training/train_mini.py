"""Trains Granule mini from nothing: `python -m training.train_mini --out .training`.

The stages run one after another; each goes on from its last checkpoint in `--out`, so the command can be stopped and given
again at any time. `log.jsonl` there holds every loss and composition error. The result goes to `--export`.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from shared.palette import load_palette
from training.adapters import train_adapters
from training.architecture import TOKENIZERS
from training.conditioning import train_text_encoders
from training.critic import sharpen_decoder
from training.data import LatentTiles, Series, cache_latents
from training.export import export_adapters, export_base
from training.measure import CompositionProbe
from training.progress import Progress
from training.unet import Phase, train_unet
from training.vae import load_vae, train_vae


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long each stage runs. The model card says where the committed checkpoint's way was different."""

    seed: int = 11
    vae_steps: int = 2400
    critic_steps: int = 3900
    text_steps: int = 3000
    unet_phases: tuple[Phase, ...] = (Phase(14_000, 32, 16), Phase(15_000, 64, 4))
    adapter_phases: tuple[Phase, ...] = (Phase(1900, 32, 16), Phase(2500, 64, 4), Phase(2700, 128, 1))
    terrazzo: Series = Series("terrazzo", 512, 12, 100, 13_000)
    rubber: Series = Series("rubber", 512, 10, 100, 15_000)
    wide_rubber: Series = Series("rubber", 1024, 2, 40, 16_000)

    def longer(self, factor: float) -> Recipe:
        """Return the recipe with UNet and adapters trained `factor` times as long; it can continue a finished run."""
        return replace(
            self,
            unet_phases=tuple(replace(phase, until=round(phase.until * factor)) for phase in self.unet_phases),
            adapter_phases=tuple(replace(phase, until=round(phase.until * factor)) for phase in self.adapter_phases),
        )


def train(out: Path, export: Path, recipe: Recipe, start: Path | None = None) -> None:
    """Run every stage that is not done yet and write the checkpoint to `export`.

    With `start`, an exported checkpoint, its autoencoder is taken over and its text encoders and UNet are trained further.
    """
    out.mkdir(parents=True, exist_ok=True)
    progress, palette, seed = Progress(out), load_palette(), recipe.seed
    vae = load_vae(start) if start else train_vae(progress, palette, steps=recipe.vae_steps, seed=seed)
    texts = train_text_encoders(progress, palette, steps=recipe.text_steps, seed=seed + 1, start=start)
    terrazzo = cache_latents(out / "latents", recipe.terrazzo, vae, palette)
    unet = train_unet(
        progress,
        palette,
        texts,
        terrazzo,
        phases=recipe.unet_phases,
        seed=seed + 3,
        measure=CompositionProbe(vae, palette, rubber=False),
        start=start,
    )
    base, base_texts = _copies(unet.state_dict()), {name: _copies(state) for name, state in texts.state_dict().items()}
    rubber = cache_latents(out / "latents", recipe.rubber, vae, palette)
    wide = cache_latents(out / "latents", recipe.wide_rubber, vae, palette)

    def tiles(side: int) -> LatentTiles:
        return wide if side > rubber.latents.shape[-1] else rubber

    lora, tokens = train_adapters(
        progress,
        palette,
        unet,
        texts,
        tiles,
        phases=recipe.adapter_phases,
        seed=seed + 6,
        measure=CompositionProbe(vae, palette, rubber=True),
    )
    vae = sharpen_decoder(progress, palette, vae, steps=recipe.critic_steps, seed=seed + 7)
    export_base(export, vae, base, base_texts)
    export_adapters(export, lora, tokens)


def _copies(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train_mini", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--out", type=Path, default=Path(".training"), help="checkpoints, cached latents and the log")
    parser.add_argument("--export", type=Path, default=TOKENIZERS, help="where the finished checkpoint goes")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of torch")
    parser.add_argument("--longer", type=float, default=1.0, help="train UNet and adapters this many times as long")
    parser.add_argument("--start", type=Path, help="an exported checkpoint to train further instead of beginning with nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.out, arguments.export, Recipe().longer(arguments.longer), arguments.start)


if __name__ == "__main__":
    main()
