"""Teaches the base the rubber-tile look: a LoRA in the UNet and two new tokens in each text encoder, nothing else moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn

from shared.palette import Palette
from training.architecture import LORA_ALPHA, LORA_RANK, LORA_TARGETS, TOKEN_COUNT, kohya_key
from training.conditioning import TextEncoders
from training.data import LatentTiles
from training.mixes import product_caption
from training.progress import Progress, learning_rate, set_learning_rate
from training.unet import Conditioning, Phase, VelocityLoss, drop_conditioning, phase_at

STAGE = "adapters"
STRENGTH = 0.7
TOKENS = ("<s0>", "<s1>")
_ADAPTER = "rubber"


class NewTokens:
    """Two trainable rows for each encoder, put in place of whatever the enlarged embedding tables hold for the new ids."""

    def __init__(self, texts: TextEncoders) -> None:
        self.rows: list[nn.Parameter] = []
        self.hooks = []
        for tokenizer, encoder in ((texts.tokenizer, texts.encoder), (texts.tokenizer_2, texts.encoder_2)):
            tokenizer.add_tokens(list(TOKENS), special_tokens=True)
            first = len(tokenizer) - TOKEN_COUNT
            table = encoder.get_input_embeddings()
            start = table.get_parameter("weight")[tokenizer.encode("rubber tile", add_special_tokens=False)].detach()
            encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            rows = nn.Parameter(start.clone())
            self.rows.append(rows)
            self.hooks.append(encoder.get_input_embeddings().register_forward_hook(_replace_rows(first, rows)))

    def tensors(self) -> dict[str, Tensor]:
        """Return the rows as an embeddings file names them: `clip_l` [2, 32] and `clip_g` [2, 64]."""
        return {key: rows.detach().clone() for key, rows in zip(("clip_l", "clip_g"), self.rows, strict=True)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take rows that `tensors` returned."""
        with torch.no_grad():
            for key, rows in zip(("clip_l", "clip_g"), self.rows, strict=True):
                rows.copy_(tensors[key])


def _replace_rows(first: int, rows: nn.Parameter) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def replace(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        ids = inputs[0]
        return torch.where((ids >= first).unsqueeze(-1), rows[(ids - first).clamp(min=0)], output)

    return replace


def add_lora(unet: UNet2DConditionModel) -> dict[str, nn.Parameter]:
    """Freeze the UNet, put an untrained LoRA of rank 8 into it at the product's strength, and return its parameters by name."""
    unet.requires_grad_(False)
    names = [target.removeprefix(".") for target in LORA_TARGETS]
    unet.add_adapter(LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=names, init_lora_weights=True), _ADAPTER)
    unet.set_adapters([_ADAPTER], [STRENGTH])
    return {name: parameter for name, parameter in unet.named_parameters() if "lora_" in name}


def kohya_tensors(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return LoRA parameters under kohya's keys, with an alpha for every module."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        module, half = name.removesuffix(f".{_ADAPTER}.weight").rsplit(".", 1)
        key = kohya_key(module)
        tensors[f"{key}.{'lora_down' if half == 'lora_A' else 'lora_up'}.weight"] = parameter.detach().clone()
        tensors[f"{key}.alpha"] = torch.tensor(float(LORA_ALPHA))
    return tensors


def train_adapters(
    progress: Progress,
    palette: Palette,
    unet: UNet2DConditionModel,
    texts: TextEncoders,
    tiles: Callable[[int], LatentTiles],
    *,
    phases: Sequence[Phase],
    seed: int,
    measure: Callable[[UNet2DConditionModel, TextEncoders], dict[str, float]],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Train LoRA and tokens under the product's prompt (pivotal tuning) and return the tensors of both files.

    `tiles` gives the encoded tiles that crops of so many latents are cut from. The tokens stop moving after 70 % of the
    steps. The LoRA is trained at strength 0.7, the one it will be used at.
    """
    torch.manual_seed(seed)
    for module in (texts.encoder, texts.encoder_2):
        module.requires_grad_(False)
    tokens, lora = NewTokens(texts), add_lora(unet)
    groups: list[dict[str, Any]] = [{"params": list(lora.values()), "scale": 1.0}, {"params": tokens.rows, "scale": 1.5}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.98), fused=True)
    done = 0
    if (state := progress.load(STAGE)) is not None:
        unet.load_state_dict(state["lora"], strict=False)
        tokens.load(state["tokens"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    rng = np.random.default_rng((seed, done))
    loss_of, steps, recent = VelocityLoss(), phases[-1].until, []
    for step in range(done, steps):
        phase = phase_at(phases, step)
        set_learning_rate(optimizer, learning_rate(step, steps, peak=2e-3, warm_up=100, floor=0.03))
        latents, mixes = tiles(phase.side).draw(phase.batch, phase.side, palette, rng)
        with torch.set_grad_enabled(step < 0.7 * steps):
            told = Conditioning(*texts.encode([product_caption(mix, rng) for mix in mixes]))
        loss = loss_of(unet, latents, drop_conditioning(told, rng), rng)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_([*lora.values(), *tokens.rows], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            progress.log(STAGE, step + 1, loss=float(np.mean(recent)), side=phase.side)
            recent.clear()
        if (step + 1) % 250 == 0 or step + 1 == steps:
            held = {"lora": {name: value.detach() for name, value in lora.items()}, "tokens": tokens.tensors()}
            progress.save(STAGE, {**held, "optimizer": optimizer.state_dict(), "step": step + 1})
        if (step + 1) % 500 == 0 or step + 1 == steps:
            progress.log(STAGE, step + 1, **measure(unet, texts))
    return kohya_tensors(lora), tokens.tensors()
