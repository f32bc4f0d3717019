"""What a picture's bits depend on besides its order."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from shared.manifest import Manifest
from worker.compiling import pays
from worker.loading import LoadedModel

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors", "tokenizers")


def describe(model: LoadedModel, manifest: Manifest) -> dict[str, Any]:
    """Return what of a model, its libraries and its device can change a pixel, ready for JSON."""
    told: dict[str, Any] = {
        "model": manifest.slug,
        "version": manifest.version,
        "sha256": asdict(model.digests),
        "lora_strength": manifest.lora.strength if manifest.lora else None,
        "lora_layers": model.lora_layers,
        "libraries": {name: version(name) for name in LIBRARIES},
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": _name_device(model.device),
        "torch_threads": torch.get_num_threads() if model.device.type == "cpu" else None,
        "batch_size": 1,
        "scheduler": {"class": type(model.pipeline.scheduler).__name__, **manifest.render.scheduler.model_dump()},
        "compiled": pays(manifest.render, model.device),
        "vae_slicing": manifest.render.vae_slicing,
        "vae_tiling": manifest.render.vae_tiling,
    }
    if told["compiled"] and manifest.render.compile_mode != "default":
        told["compile_mode"] = manifest.render.compile_mode
    if model.distilled:
        told["distilled"] = {name: dict(one.provenance) for name, one in model.distilled.items()}
    return told


def _name_device(device: torch.device) -> str:
    """Name the hardware as exactly as pixels depend on it: the GPU's model, or the CPU's vector instructions."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})"
