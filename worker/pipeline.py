"""The warm pipeline: loaded once, then one picture for each call, the same picture for the same request.

Use it from one thread only: the sampler keeps its state on the object. On a GPU, build it in the process that renders.
"""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline
from diffusers.callbacks import SDXLCFGCutoffCallback
from numpy.typing import NDArray

from shared.errors import DeviceLost, InputInvalid, OutOfMemory, RenderFailed
from shared.jobs import RenderSpec
from shared.manifest import Manifest
from shared.metrics import GPU_MEMORY
from shared.settings import Settings
from worker.compiling import pays, uncompiled
from worker.guided import encode_pixels, paint_guide
from worker.latent_preview import LatentPreview
from worker.loading import LoadedModel, load_model
from worker.prompt_encoder import PromptEncoder
from worker.pulse import Memory
from worker.seamless import circular_padding

log = logging.getLogger(__name__)

OnStep = Callable[[int, int], None]

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors", "tokenizers")
# Two steps reach both halves of a second-order sampler; the kernels are those of a render of any length.
WARM_UP_STEPS = 2
WARM_UP_ON_CPU_PX = 256
SIZE_STEP_PX = 8
SEED_LIMIT = 2**32


@dataclass(frozen=True, eq=False)
class Rendered:
    """A finished picture: `pixels` is uint8 of shape height x width x 3 in sRGB; `duration_s` from request to pixels."""

    pixels: NDArray[np.uint8]
    duration_s: float


class Pipeline:
    """One loaded model, ready to render. Get it from `load_pipeline`."""

    def __init__(self, model: LoadedModel, manifest: Manifest) -> None:
        self._sdxl = model.pipeline
        # The same models once more: image-to-image has no weights of its own.
        self._img2img = StableDiffusionXLImg2ImgPipeline(**model.pipeline.components, add_watermarker=False)
        self._img2img.set_progress_bar_config(disable=True)
        self._device = model.device
        self._encoder = PromptEncoder(model.pipeline)
        self._preview = LatentPreview(model.pipeline.vae, manifest.colors.colors)
        self._provenance = _describe(model, manifest)
        self._is_lean = False
        self._memory: Memory | None = None

    @property
    def device(self) -> torch.device:
        """What it draws on."""
        return self._device

    @property
    def provenance(self) -> dict[str, Any]:
        """What besides the request decided the last picture's pixels, ready for JSON: digests, versions, dtype, device."""
        return self._provenance | ({"drawn": "in smaller parts"} if self._is_lean else {})

    def render(self, spec: RenderSpec, on_step: OnStep) -> Rendered:
        """Draw one picture.

        `on_step(step, steps)` is called after each denoising step, counted from 1. Whatever it raises ends the render and
        is passed on unchanged; the pipeline stays as it was. How the picture is to be encoded is none of its business.

        Raises:
            InputInvalid: the seed, the step count or the size cannot be rendered, or a text is too long.
            OutOfMemory: the device has too little memory for this picture, even in smaller parts. `on_step` was then called
                for two tries.
            RenderFailed: the libraries failed, or the picture holds values that are no numbers.
        """
        check_spec(spec)
        started = time.perf_counter()
        self._is_lean = False
        try:
            return Rendered(self._draw(spec, on_step), time.perf_counter() - started)
        except OutOfMemory as error:
            log.warning("%s; it is drawn once more, in smaller parts", error)
        # Out here, where the error with all the tensors of its frames is gone.
        with self._lean():
            return Rendered(self._draw(spec, on_step), time.perf_counter() - started)

    @property
    def memory(self) -> Memory | None:
        """How much memory the GPU had and had to give after the last picture; None on a CPU."""
        return self._memory

    def preview(self) -> NDArray[np.uint8]:
        """Return a rough picture of what is being drawn: sRGB, height / 8 x width / 8 x 3. To be called from `on_step` only.

        It is of what the sampler expects to come out in the end, so it has no noise. It waits for the device.
        """
        return self._preview.pixels(self._sdxl.scheduler.model_outputs[-1][0])

    def _show_memory(self) -> None:
        if self._device.type != "cuda":
            return
        free_bytes, total_bytes = torch.cuda.mem_get_info(self._device)
        self._memory = Memory(free_bytes, total_bytes, torch.cuda.max_memory_allocated(self._device))
        for kind, size_bytes in (("free", free_bytes), ("total", total_bytes), ("peak", self._memory.peak_bytes)):
            GPU_MEMORY.labels(kind).set(size_bytes)

    def _draw(self, spec: RenderSpec, on_step: OnStep) -> NDArray[np.uint8]:
        stopped: list[BaseException] = []
        torus = circular_padding(self._sdxl.unet, self._sdxl.vae) if spec.seamless else nullcontext()
        eager = uncompiled() if spec.seamless or self._is_lean else nullcontext()
        try:
            with torus, eager:
                pixels = self._decode(self._denoise(spec, on_step, stopped))
            self._show_memory()
            return pixels
        except (RuntimeError, ValueError, MemoryError) as error:
            if error in stopped:
                raise
            raise self._translate(error) from error

    @contextmanager
    def _lean(self) -> Iterator[None]:
        """Work in smaller parts inside the block: attention head by head, the picture tile by tile. It changes pixels."""
        self._is_lean = True
        unet, vae = self._sdxl.unet, self._sdxl.vae
        processors, tiling, slicing = unet.attn_processors, vae.use_tiling, vae.use_slicing
        self._free_memory()
        self._sdxl.enable_attention_slicing("max")
        vae.use_tiling = vae.use_slicing = True
        try:
            yield
        finally:
            unet.set_attn_processor(processors)
            vae.use_tiling, vae.use_slicing = tiling, slicing
            self._free_memory()

    def _free_memory(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _denoise(self, spec: RenderSpec, on_step: OnStep, stopped: list[BaseException]) -> torch.Tensor:
        """Return the finished latents. An exception of `on_step` is put into `stopped` to be known again."""

        cutoff = SDXLCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=spec.guided_steps - 1)

        def report(sdxl: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            try:
                on_step(index + 1, sdxl.num_timesteps)
            except BaseException as error:
                stopped.append(error)
                raise
            kept: dict[str, Any] = cutoff.callback_fn(sdxl, index, timestep, tensors) if tensors else {}
            return kept

        positive = self._encoder.encode(spec.prompt)
        negative = self._encoder.encode_negative(spec.negative_prompt)
        # The library knows text-to-image and image-to-image as two pipelines; they differ in what the noise is put on.
        sdxl, start = (self._sdxl, {"width": spec.width_px, "height": spec.height_px})
        if spec.strength is not None:
            sdxl, start = (self._img2img, self._painted_start(spec))
        latents: torch.Tensor = sdxl(
            prompt_embeds=positive.embeds,
            pooled_prompt_embeds=positive.pooled,
            negative_prompt_embeds=negative.embeds,
            negative_pooled_prompt_embeds=negative.pooled,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            # Noise drawn on the CPU is the same on every device.
            generator=torch.Generator("cpu").manual_seed(spec.seed),
            callback_on_step_end=report,
            callback_on_step_end_tensor_inputs=cutoff.tensor_inputs if spec.guided_steps < spec.steps else [],
            output_type="latent",
            **start,
        ).images
        return latents

    def _painted_start(self, spec: RenderSpec) -> dict[str, Any]:
        """Return what image-to-image begins with: the latents of the painted tile, and how far to noise them."""
        vae = self._sdxl.vae
        guide = paint_guide(spec, lambda pixels: self._decode(encode_pixels(vae, pixels)))
        latents = encode_pixels(vae, guide, wrap=spec.seamless)
        # The library rounds steps x strength down; half a step more makes that the number that was promised.
        strength = min(1.0, (spec.steps + 0.5) / spec.num_inference_steps)
        return {"image": latents.to(self._sdxl.unet.dtype), "strength": strength}

    @torch.no_grad()
    def _decode(self, latents: torch.Tensor) -> NDArray[np.uint8]:
        """Decode latents to pixels. Kept out of the library's call, which would clamp infinities to white.

        Raises:
            RenderFailed: the decoded picture is not finite.
        """
        vae = self._sdxl.vae
        image = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0][0].float()
        if not bool(torch.isfinite(image).all()):
            raise RenderFailed(
                f"the picture holds NaN or infinity: the model overflows in {self._provenance['dtype']}; "
                "render in bfloat16 or float32, or look for damaged weights"
            )
        levels = ((image / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        pixels: NDArray[np.uint8] = levels.permute(1, 2, 0).contiguous().cpu().numpy()
        return pixels

    def _translate(self, error: Exception) -> RenderFailed:
        # On the CPU torch has no class of its own for want of memory, only a text; so has CUDA's driver.
        texts = ("out of memory", "can't allocate memory")
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in texts):
            return OutOfMemory(f"{self._device} has too little memory for this picture: {error}")
        # The class that newer releases of torch raise for it begins its text in the same way.
        if "CUDA error" in str(error):
            return DeviceLost(f"{self._device} is lost to this process: {error}")
        return RenderFailed(f"the pipeline failed: {error}")


def load_pipeline(manifest: Manifest, settings: Settings) -> Pipeline:
    """Load a model and render once, so that the first job finds everything warm.

    Raises:
        WeightsInvalid: a file is refused or did not load in full.
        ManifestInvalid: the sampler does not suit the base.
        SettingsInvalid: the device asked for is not there.
        RenderFailed: the warm-up render failed; OutOfMemory when for want of memory.
    """
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    started = time.perf_counter()
    model = load_model(manifest, settings)
    loaded = time.perf_counter()
    pipeline = Pipeline(model, manifest)
    warm_up(pipeline, manifest)
    log.info(
        "%s is ready on %s: %d LoRA layers fused, loaded in %.1f s (%s), warm after %.1f s more",
        manifest.slug,
        pipeline.provenance["device"],
        model.lora_layers,
        loaded - started,
        ", ".join(f"{part} {seconds:.1f}" for part, seconds in model.laps_s.items()),
        time.perf_counter() - loaded,
    )
    return pipeline


def warm_up(pipeline: Pipeline, manifest: Manifest) -> None:
    """Render once, so that the first job finds everything in its place. Raises RenderFailed, OutOfMemory."""
    pipeline.render(_warm_up_spec(manifest, pipeline.device), lambda step, steps: None)


def check_spec(spec: RenderSpec) -> None:
    """Refuse a request that would fail, or silently mean something else, deep in the libraries.

    Raises:
        InputInvalid: names the field.
    """
    if not 0 <= spec.seed < SEED_LIMIT:
        raise InputInvalid(f"the seed must be 0 to {SEED_LIMIT - 1}, not {spec.seed}", field="seed")
    if spec.num_inference_steps < 1:
        raise InputInvalid(f"at least 1 step is needed, not {spec.num_inference_steps}", field="num_inference_steps")
    if not (math.isfinite(spec.guidance_scale) and spec.guidance_scale >= 0):
        raise InputInvalid(f"the guidance scale must be 0 or more, not {spec.guidance_scale}", field="guidance_scale")
    if not 0 < spec.guidance_end <= 1:
        raise InputInvalid(f"guidance must end above 0 and at most at 1, not {spec.guidance_end}", field="guidance_end")
    if spec.strength is not None:
        _check_guide(spec)
    for field, size_px in (("width", spec.width_px), ("height", spec.height_px)):
        if size_px < SIZE_STEP_PX or size_px % SIZE_STEP_PX:
            raise InputInvalid(f"the {field} must be a multiple of {SIZE_STEP_PX} px, not {size_px}", field=field)


def _check_guide(spec: RenderSpec) -> None:
    if not 0 < (spec.strength or 0) <= 1:
        raise InputInvalid(f"the strength must be above 0 and at most 1, not {spec.strength}", field="strength")
    if not spec.painted:
        raise InputInvalid("a guided picture needs colours to paint", field="painted")
    if spec.width_px != spec.height_px:
        raise InputInvalid(f"a guided picture is square, not {spec.width_px} x {spec.height_px} px", field="width")


def _warm_up_spec(manifest: Manifest, device: torch.device) -> RenderSpec:
    render = manifest.render
    # A GPU chooses its kernels by shape and is to prove that it has the memory. A CPU has little to warm, and seconds to lose.
    size_max_px = max(render.width_px, render.height_px) if device.type == "cuda" else WARM_UP_ON_CPU_PX
    return replace(
        manifest.plain_spec(manifest.prompt.fill("100% red"), seed=0),
        num_inference_steps=WARM_UP_STEPS,
        width_px=min(render.width_px, size_max_px),
        height_px=min(render.height_px, size_max_px),
        # With guidance and without are two shapes of the same work, and both are to be warm.
        guidance_end=0.5 if any(profile.guidance_end < 1 for profile in manifest.profiles.values()) else 1.0,
    )


def _describe(model: LoadedModel, manifest: Manifest) -> dict[str, Any]:
    return {
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


def _name_device(device: torch.device) -> str:
    """Name the hardware as exactly as pixels depend on it: the GPU's model, or the CPU's vector instructions."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})"
