"""Read LoRA files of every common spelling into one form.

Trainers agree on what a LoRA is (two factors and a strength `alpha` for each adapted layer) but spell the key of a layer
in a dozen ways, and a loader that meets an unknown spelling tends to load nothing and say nothing. Here each key is
reduced to the module it adapts and matched against the modules that the base model really has, so every key is either
understood or refused by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared.errors import WeightsInvalid

UNET = "unet"
TEXT_ENCODER = "text_encoder"
TEXT_ENCODER_2 = "text_encoder_2"
COMPONENTS = (UNET, TEXT_ENCODER, TEXT_ENCODER_2)

ADAPTER_CONFIG_FILE = "adapter_config.json"
METADATA_KEY = "lora_adapter_metadata"

# What a key ends with, and so which part of a layer its tensor is. The optional word after lora_A and lora_B is an
# adapter's name that some exporters leave in the key.
_PART = re.compile(
    r"(?:\.lora_(?P<peft>A|B)(?:\.\w+)?\.weight"
    r"|[._]lora(?:_linear_layer)?\.(?P<diffusers>down|up)\.weight"
    r"|\.lora_(?P<kohya>down|up)\.weight"
    r"|\.(?P<alpha>alpha))$"
)
_PART_NAMES = {"A": "down", "B": "up"}
_WRAPPERS = ("base_model.model.", "base_model_model_")
_PREFIXES = {
    "unet.": UNET,
    "lora_unet_": UNET,
    "text_encoder.": TEXT_ENCODER,
    "lora_te_": TEXT_ENCODER,
    "lora_te1_": TEXT_ENCODER,
    "text_encoder_2.": TEXT_ENCODER_2,
    "lora_te2_": TEXT_ENCODER_2,
}
# Marks of formats that are not a pair of low-rank factors, or that a plain pair would render at a wrong strength.
_REFUSED = {
    "hada_": "LyCORIS LoHa (hada_*) is no plain LoRA; merge it into the base or export it as LoRA",
    "lokr_": "LyCORIS LoKr (lokr_*) is no plain LoRA; merge it into the base or export it as LoRA",
    "lora_mid": "LyCORIS with a Tucker core (lora_mid) is no plain LoRA; train or export it without Tucker decomposition",
    "oft_": "OFT is no plain LoRA; merge it into the base",
    "dora_scale": "DoRA (dora_scale) would be applied at a wrong strength; merge it into the base or train a plain LoRA",
    "lora_magnitude_vector": "DoRA would be applied at a wrong strength; merge it into the base or train a plain LoRA",
    "lora_embedding_": "LoRA of the token table is not supported; train the words as a textual inversion",
    "lora_B.bias": "LoRA with biases is not supported; train it with lora_bias off",
}
_NAMED_AT_MOST = 5


@dataclass(frozen=True, eq=False)
class LoraLayer:
    """One adapted layer: the weight W of `module` in `component` becomes W + strength * alpha / rank * up @ down.

    `down` is (rank, in) or (rank, in, kernel, kernel), `up` is (out, rank) or (out, rank, 1, 1), both as in the file.
    """

    component: str
    module: str
    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Inner dimension of the two factors."""
        return int(self.down.shape[0])


@dataclass
class _Parts:
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


def parse_layers(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], components: Mapping[str, nn.Module]
) -> tuple[LoraLayer, ...]:
    """Turn the tensors of a LoRA file into layers of the given components, whatever spelling the file uses.

    `path` names the file in errors; a PEFT adapter_config.json beside it and `metadata` of the file are asked for alphas
    where the tensors carry none (alpha is then the rank, as everywhere). `components` maps `COMPONENTS` to the models.

    Raises:
        WeightsInvalid: a key is of a refused format, adapts nothing in the base, appears twice or lacks its other half, a
            shape does not fit the base, or there is no LoRA in the file.
    """
    _refuse_formats(path, tensors)
    targets = {name: _spellings(model) for name, model in components.items()}
    layers: dict[tuple[str, str], _Parts] = {}
    unknown = []
    for key, tensor in tensors.items():
        found = _locate(key, targets)
        if found is None:
            unknown.append(key)
            continue
        component, module, part = found
        parts = layers.setdefault((component, module), _Parts())
        if part in parts.tensors:
            raise WeightsInvalid(f"{path}: {key} and {parts.keys[part]} adapt the same layer; keep one spelling in the file")
        parts.tensors[part], parts.keys[part] = tensor, key
    if unknown:
        raise WeightsInvalid(_explain_unknown(path, unknown))
    declared = _declared_alphas(path, metadata)
    return tuple(
        _assemble(path, components[component].get_submodule(module), component, module, parts, declared)
        for (component, module), parts in layers.items()
    )


def _refuse_formats(path: Path, keys: Iterable[str]) -> None:
    for key in keys:
        for mark, reason in _REFUSED.items():
            if mark in key:
                raise WeightsInvalid(f"{path}: {reason} (key {key})")


def _explain_unknown(path: Path, keys: list[str]) -> str:
    named = ", ".join(keys[:_NAMED_AT_MOST]) + (", ..." if len(keys) > _NAMED_AT_MOST else "")
    return (
        f"{path}: {len(keys)} of its keys adapt nothing in the base model ({named}); "
        "the file is for another architecture, is no LoRA, or holds more than one"
    )


def _locate(key: str, targets: Mapping[str, Mapping[str, str]]) -> tuple[str, str, str] | None:
    """Return (component, module, part) of a key, or None if it names no layer of the base."""
    match = _PART.search(key)
    if match is None:
        return None
    part = next(value for value in match.groupdict().values() if value)
    component, stem = _strip_prefixes(key[: match.start()])
    module = targets[component].get(_flatten(stem)) if component in targets else None
    return None if module is None else (component, module, _PART_NAMES.get(part, part))


def _strip_prefixes(stem: str) -> tuple[str, str]:
    """Take wrappers and component prefixes off, also doubled ones; keys that name no component are the UNet's."""
    component = None
    while True:
        wrapper = next((wrapper for wrapper in _WRAPPERS if stem.startswith(wrapper)), None)
        prefix = next((p for p, name in _PREFIXES.items() if stem.startswith(p) and component in (None, name)), None)
        if prefix is not None:
            component = _PREFIXES[prefix]
        elif wrapper is None:
            return component or UNET, stem
        stem = stem.removeprefix(prefix or wrapper or "")


def _flatten(name: str) -> str:
    """Reduce a module path to the form in which all spellings agree."""
    # CLIP's text_model level came and went between releases of transformers; .processor. is diffusers' old home of LoRA.
    return name.replace(".processor.", ".").replace(".", "_").removeprefix("text_model_")


def _spellings(model: nn.Module) -> dict[str, str]:
    """Map every flattened spelling of a linear or convolution layer to its path in `model`."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    table: dict[str, str] = {}
    for name in names:
        table[_flatten(name)] = name
        if name.endswith(".to_out.0"):
            table[_flatten(name.removesuffix(".0"))] = name
    numbers = [int(found[1]) for name in names if (found := re.match(r"down_blocks\.0\.resnets\.(\d+)\.", name))]
    if numbers:
        attended = {name.split(".attentions.")[0] for name in names if ".attentions." in name}
        table.update({sgm: name for name in names if (sgm := _sgm_spelling(name, 1 + max(numbers), attended))})
    return table


_SGM_SINGLES = {
    "conv_in": "input_blocks_0_0",
    "conv_out": "out_2",
    "time_embedding.linear_1": "time_embed_0",
    "time_embedding.linear_2": "time_embed_2",
    "add_embedding.linear_1": "label_emb_0_0",
    "add_embedding.linear_2": "label_emb_0_2",
}
_SGM_RESNET = {
    "conv1": "in_layers_2",
    "conv2": "out_layers_3",
    "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
}
_SGM_BLOCK = re.compile(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def _sgm_spelling(name: str, layers: int, attended: set[str]) -> str | None:
    """Spell a UNet layer as Stability's own code numbers it, which is what kohya's trainer writes for SDXL.

    There every resnet with its attention is one numbered block, and so is every downsampler. `layers` is the number of
    resnets in each level on the way down; `attended` holds the blocks that have attention.
    """
    match = _SGM_BLOCK.fullmatch(name)
    if match is None:
        return _SGM_SINGLES.get(name)
    side, block, kind, layer, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    tail = _SGM_RESNET.get(rest, rest) if kind == "resnets" else rest.replace(".", "_")
    if side == "mid":
        return f"middle_block_{2 * layer if kind == 'resnets' else 1}_{tail}"
    if kind == "downsamplers":
        return f"input_blocks_{(block + 1) * (layers + 1)}_0_op"
    if kind == "upsamplers":
        place = 2 if f"up_blocks.{block}" in attended else 1
        return f"output_blocks_{block * (layers + 1) + layers}_{place}_{tail}"
    place = 0 if kind == "resnets" else 1
    if side == "down":
        return f"input_blocks_{block * (layers + 1) + layer + 1}_{place}_{tail}"
    return f"output_blocks_{block * (layers + 1) + layer}_{place}_{tail}"


def _assemble(
    path: Path, target: nn.Module, component: str, module: str, parts: _Parts, declared: Mapping[str, Mapping[str, Any]]
) -> LoraLayer:
    missing = {"down", "up"} - parts.tensors.keys()
    if missing:
        raise WeightsInvalid(f"{path}: {next(iter(parts.keys.values()))} has no {missing.pop()} half; the file is cut short")
    down, up = parts.tensors["down"], parts.tensors["up"]
    weight = target.get_parameter("weight")
    rank, kernel = int(down.shape[0]), tuple(weight.shape[2:])
    expected = (rank, *weight.shape[1:]), (weight.shape[0], rank, *(1 for _ in kernel))
    if (tuple(down.shape), tuple(up.shape)) != expected:
        raise WeightsInvalid(
            f"{path}: {parts.keys['down']} has shapes {tuple(down.shape)} and {tuple(up.shape)} where the base model needs "
            f"{expected[0]} and {expected[1]}; the LoRA was trained for another base"
        )
    alpha = _alpha_of(parts.tensors.get("alpha"), declared.get(component, {}), module, rank)
    if not (math.isfinite(alpha) and alpha > 0):
        raise WeightsInvalid(f"{path}: the alpha of {parts.keys['down']} is {alpha}; it must be a number above 0")
    return LoraLayer(component, module, down, up, alpha)


def _alpha_of(tensor: torch.Tensor | None, declared: Mapping[str, Any], module: str, rank: int) -> float:
    if tensor is not None:
        return float(tensor.item()) if tensor.numel() == 1 else math.nan
    for pattern, alpha in declared.get("alpha_pattern", {}).items():
        if re.fullmatch(rf"(?:.*\.)?(?:{re.escape(pattern.removeprefix('^'))})", module):
            return float(alpha)
    return float(declared.get("lora_alpha", rank))


def _declared_alphas(path: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return PEFT's configuration by component, from the file's metadata or an adapter_config.json beside it."""
    beside = path.with_name(ADAPTER_CONFIG_FILE)
    try:
        if METADATA_KEY in metadata:
            flat = json.loads(metadata[METADATA_KEY])
        elif beside.is_file():
            flat = {f"{UNET}.{name}": value for name, value in json.loads(beside.read_text(encoding="utf-8")).items()}
        else:
            return {}
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsInvalid(f"{path}: its PEFT configuration cannot be read: {error}") from error
    declared: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        component, _, key = name.partition(".")
        declared.setdefault(component, {})[key] = value
    for config in declared.values():
        for variant in ("use_dora", "use_rslora"):
            if config.get(variant):
                raise WeightsInvalid(f"{path}: it was trained with {variant}, which would be applied at a wrong strength")
    return declared
