"""Build the pipeline of one model in the one order that is right.

float32 on the CPU -> LoRA injected, compared with its file, fused once and removed -> textual inversion in both encoders,
compared with its file -> cast -> device -> channels_last. Fusing in float32 and casting afterwards costs half the rounding
error of fusing in half precision.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from shared.errors import OutOfMemory, SettingsInvalid
from shared.manifest import Lora, Manifest, Profile, Render, Scheduler, TextualInversion
from shared.settings import Settings
from worker.base_model import load_base, locate_base
from worker.compiling import compile_models, pays
from worker.embeddings import load_embeddings
from worker.lora import fuse_lora
from worker.lora_keys import UNET
from worker.weights import WeightsFile, inspect_file

# Fields of the sampler that no manifest sets. They are stated because `from_config` and new releases change defaults.
FIXED_SCHEDULER_FIELDS: dict[str, Any] = {
    "trained_betas": None,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "lambda_min_clipped": -float("inf"),
    "variance_type": None,
    "rescale_betas_zero_snr": False,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}


@dataclass(frozen=True)
class Digests:
    """sha256 of what was loaded, 64 hex digits each; None where the manifest names no such file."""

    base: str
    lora: str | None
    textual_inversion: str | None


@dataclass(frozen=True)
class DistilledModel:
    """The model once more with a UNet and a sampler of a profile's own; all else is shared. `provenance` is ready for JSON."""

    pipeline: StableDiffusionXLPipeline
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class LoadedModel:
    """A complete pipeline on its device, and what it was made of.

    `lora_layers` counts the fused layers; `laps_s` says how long each part of the loading took, in seconds; `distilled` has
    what the profiles of these names draw with.
    """

    pipeline: StableDiffusionXLPipeline
    digests: Digests
    lora_layers: int
    device: torch.device
    dtype: torch.dtype
    laps_s: Mapping[str, float] = field(default_factory=dict)
    distilled: Mapping[str, DistilledModel] = field(default_factory=dict)


class Laps:
    """Splits one stretch of time into named parts; `seconds` holds them in the order in which they ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since_s = time.perf_counter()

    def end(self, name: str) -> None:
        """Say that what began at the last end, or at the beginning, was this part."""
        now_s = time.perf_counter()
        self.seconds[name] = now_s - self._since_s
        self._since_s = now_s


def load_model(manifest: Manifest, settings: Settings) -> LoadedModel:
    """Load, check and place everything the manifest names.

    Raises:
        WeightsInvalid: a file is refused or did not load in full; the text names it and says what to do.
        ManifestInvalid: the sampler does not suit the base.
        SettingsInvalid: the device asked for is not there.
        OutOfMemory: the model does not fit on the device.
    """
    laps = Laps()
    quieten_libraries()
    device, dtype = choose_device(settings.device), choose_dtype(manifest.render, settings)
    lora, inversion = manifest.lora, manifest.textual_inversion
    # The small files first: a wrong pin there should not cost the time that hashing a full-size base takes.
    lora_file = _inspect_part(manifest, lora, settings)
    inversion_file = _inspect_part(manifest, inversion, settings)
    distilled_files = {name: _inspect_part(manifest, profile.lora, settings) for name, profile in manifest.distilled.items()}
    folder = locate_base(manifest, settings.weights_dir)
    laps.end("files")
    base = load_base(folder, build_scheduler(manifest.render.scheduler), sha256=manifest.base_sha256)
    laps.end("base")
    layers = 0
    if lora is not None and lora_file is not None:
        layers = fuse_lora(base.pipeline, lora_file.path, strength=lora.strength)
    laps.end("LoRA")
    if inversion is not None and inversion_file is not None:
        load_embeddings(base.pipeline, inversion_file.path, inversion.tokens)
    laps.end("textual inversion")
    distilled = {
        name: distil(base.pipeline, file, manifest.profiles[name], manifest.render)
        for name, file in distilled_files.items()
        if file is not None
    }
    laps.end("profiles")
    for pipeline in (base.pipeline, *(model.pipeline for model in distilled.values())):
        place_pipeline(pipeline, manifest.render, device=device, dtype=dtype)
    laps.end("device")
    small = [file.sha256 if file else None for file in (lora_file, inversion_file)]
    digests = Digests(base.sha256, *small)
    return LoadedModel(base.pipeline, digests, layers, device, dtype, laps.seconds, distilled)


def distil(pipeline: StableDiffusionXLPipeline, file: WeightsFile, profile: Profile, render: Render) -> DistilledModel:
    """Make a second UNet out of a loaded one, which must be float32 on the CPU, with a profile's LoRA fused on top.

    A copy, and not an adapter that is switched on and off: that would stand in the way of every step of every other picture,
    and of `torch.compile`. It costs the memory of one UNet more.

    Raises:
        WeightsInvalid: the file is refused, or adapts a text encoder, which both UNets read from.
    """
    if profile.lora is None:
        raise ValueError("only a profile with a LoRA has a UNet of its own")
    scheduler = profile.scheduler or render.scheduler
    own = {"unet": copy.deepcopy(pipeline.unet), "scheduler": build_scheduler(scheduler)}
    second = StableDiffusionXLPipeline(**{**pipeline.components, **own}, add_watermarker=False)
    layers = fuse_lora(second, file.path, strength=profile.lora.strength, allowed=(UNET,))
    told = {"lora": file.sha256, "lora_strength": profile.lora.strength, "lora_layers": layers}
    return DistilledModel(second, told | {"scheduler": scheduler.model_dump()})


def _inspect_part(manifest: Manifest, part: Lora | TextualInversion | None, settings: Settings) -> WeightsFile | None:
    if part is None:
        return None
    return inspect_file(manifest.path_of(part.file, settings.weights_dir), sha256=part.sha256, size_bytes=part.size_bytes)


def place_pipeline(pipeline: StableDiffusionXLPipeline, render: Render, *, device: torch.device, dtype: torch.dtype) -> None:
    """Cast a float32 pipeline, move it to the device and set it up for rendering.

    Raises:
        OutOfMemory: it does not fit on the device.
    """
    # SDXL's original VAE overflows in float16 and says so with force_upcast; it then stays in float32.
    keep_vae = dtype == torch.float16 and pipeline.vae.config.force_upcast
    try:
        for part in (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2, pipeline.vae):
            part.to(device=device, dtype=torch.float32 if keep_vae and part is pipeline.vae else dtype)
            part.requires_grad_(False)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"the model does not fit on {device}: {error}") from error
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    if render.vae_slicing:
        pipeline.vae.enable_slicing()
    if render.vae_tiling:
        pipeline.vae.enable_tiling()
    if pays(render, device):
        compile_models(pipeline, mode=render.compile_mode)
    pipeline.set_progress_bar_config(disable=True)


def build_scheduler(fields: Scheduler) -> DPMSolverMultistepScheduler:
    """Return the sampler with every field of its constructor stated, none inherited from the checkpoint."""
    return DPMSolverMultistepScheduler(**fields.model_dump(), **FIXED_SCHEDULER_FIELDS)


def choose_device(wanted: str) -> torch.device:
    """Resolve `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        SettingsInvalid: a CUDA device is named that torch does not see.
    """
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return torch.device("cuda:0" if seen else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= seen:
        raise SettingsInvalid(f"GRANULE_DEVICE is {wanted} but torch sees {seen} CUDA devices; use auto or cpu", field="device")
    return torch.device("cuda:0") if wanted == "cuda" else device


def choose_dtype(render: Render, settings: Settings) -> torch.dtype:
    """Return the setting's dtype, or the manifest's where the setting leaves it to that."""
    name = render.dtype if settings.dtype == "manifest" else settings.dtype
    return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[name]


def quieten_libraries() -> None:
    """Leave only errors of diffusers and transformers in the log: what they warn of is checked here, and refused."""
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
