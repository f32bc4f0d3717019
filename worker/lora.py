"""Put a LoRA into the pipeline's weights, and prove that all of it arrived.

The layers are injected as they are in the file, compared with it bit for bit, fused once at the manifest's strength and
removed again: what renders afterwards is a plain SDXL with other weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from peft import LoraConfig
from peft.tuners.lora import LoraLayer as InjectedLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from shared.errors import WeightsInvalid
from worker.lora_keys import COMPONENTS, UNET, LoraLayer, parse_layers
from worker.weights import read_metadata, read_tensors

ADAPTER = "tile"


def fuse_lora(pipeline: StableDiffusionXLPipeline, path: Path, *, strength: float, allowed: Sequence[str] = COMPONENTS) -> int:
    """Add `strength` times the LoRA in `path` to the weights of `pipeline`, which must be float32 on the CPU.

    Only components in `allowed` may be changed. Returns the number of layers that were.

    Raises:
        WeightsInvalid: the file is no LoRA for this base in a known format (see `parse_layers`), adapts what it may not, or
            something of it did not arrive in the pipeline unchanged. In the last case the pipeline is not fit for use.
    """
    components: dict[str, nn.Module] = {name: getattr(pipeline, name) for name in COMPONENTS}
    layers = parse_layers(path, read_tensors(path), read_metadata(path), components)
    check_components(path, layers, allowed)
    inject_layers(pipeline, path, layers)
    check_layers(pipeline, path, layers)
    touched = [name for name in COMPONENTS if any(layer.component == name for layer in layers)]
    try:
        pipeline.fuse_lora(components=touched, lora_scale=strength, safe_fusing=True, adapter_names=[ADAPTER])
    except ValueError as error:
        raise WeightsInvalid(f"{path}: fused weights are not finite at strength {strength}: {error}") from error
    pipeline.unload_lora_weights()
    left = sum(len(_injected(component)) for component in components.values())
    if left:
        raise WeightsInvalid(f"{path}: {left} LoRA layers could not be removed after fusing; this is a fault of the libraries")
    return len(layers)


def check_components(path: Path, layers: Sequence[LoraLayer], allowed: Sequence[str]) -> None:
    """Raise WeightsInvalid when a layer is not for one of the components in `allowed`."""
    foreign = [layer for layer in layers if layer.component not in allowed]
    if foreign:
        raise WeightsInvalid(
            f"{path}: {len(foreign)} of its {len(layers)} layers, such as {foreign[0].component}.{foreign[0].module}, adapt "
            f"another part of the model than {' or '.join(allowed)}, which others draw with too"
        )


def inject_layers(pipeline: StableDiffusionXLPipeline, path: Path, layers: Sequence[LoraLayer]) -> None:
    """Inject the layers as the adapter `ADAPTER`, factors in float32, at a strength of 1.

    Raises:
        WeightsInvalid: the libraries refused them.
    """
    try:
        for component in COMPONENTS:
            own = [layer for layer in layers if layer.component == component]
            if not own:
                continue
            tensors = {f"{layer.module}.lora_A.weight": layer.down.float() for layer in own}
            tensors |= {f"{layer.module}.lora_B.weight": layer.up.float() for layer in own}
            config = _adapter_config(own)
            if component == UNET:
                prefixed = {f"{UNET}.{key}": tensor for key, tensor in tensors.items()}
                described = {f"{UNET}.{key}": value for key, value in config.items()}
                pipeline.unet.load_lora_adapter(prefixed, prefix=UNET, adapter_name=ADAPTER, metadata=described)
            else:
                getattr(pipeline, component).load_adapter(
                    adapter_name=ADAPTER, adapter_state_dict=tensors, peft_config=LoraConfig(**config)
                )
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise WeightsInvalid(f"{path}: the LoRA could not be put into the base model: {error}") from error


def check_layers(pipeline: StableDiffusionXLPipeline, path: Path, layers: Sequence[LoraLayer]) -> None:
    """Compare what was injected with what the file holds: the same layers, the same bits, the same scales.

    Raises:
        WeightsInvalid: names the first layer that differs, or how many are missing or too many.
    """
    injected = {
        (component, name): module
        for component in COMPONENTS
        for name, module in _injected(getattr(pipeline, component)).items()
    }
    wanted = {(layer.component, layer.module) for layer in layers}
    if injected.keys() != wanted:
        missing, surplus = len(wanted - injected.keys()), len(injected.keys() - wanted)
        raise WeightsInvalid(f"{path}: of {len(wanted)} layers {missing} did not load, and {surplus} loaded that are not in it")
    for layer in layers:
        module = injected[layer.component, layer.module]
        same = (
            isinstance(module, InjectedLayer)
            and torch.equal(module.lora_A[ADAPTER].get_parameter("weight"), layer.down.float())
            and torch.equal(module.lora_B[ADAPTER].get_parameter("weight"), layer.up.float())
            and module.scaling[ADAPTER] == layer.alpha / layer.rank
        )
        if not same:
            raise WeightsInvalid(f"{path}: layer {layer.component}.{layer.module} differs from the file after loading")


def _adapter_config(layers: Sequence[LoraLayer]) -> dict[str, Any]:
    """Describe the layers to PEFT, every one by its full path so that no pattern can match a neighbour."""
    first = layers[0]
    return {
        "r": first.rank,
        "lora_alpha": first.alpha,
        "rank_pattern": {f"^{layer.module}": layer.rank for layer in layers if layer.rank != first.rank},
        "alpha_pattern": {f"^{layer.module}": layer.alpha for layer in layers if layer.alpha != first.alpha},
        "target_modules": [layer.module for layer in layers],
    }


def _injected(component: nn.Module) -> dict[str, BaseTunerLayer]:
    return {name: module for name, module in component.named_modules() if isinstance(module, BaseTunerLayer)}
