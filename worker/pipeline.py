"""The warm pipeline: loaded once, then one picture for each call, the same picture for the same request.

Use it from one thread only: the sampler keeps its state on the object. On a GPU, build it in the process that renders.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from numpy.typing import NDArray

from shared.batching import share_forward
from shared.errors import DeviceLost, InputInvalid, OutOfMemory, RenderFailed
from shared.jobs import RenderSpec
from shared.manifest import EXACT, Manifest
from shared.metrics import GPU_MEMORY
from shared.settings import Settings
from worker.compiling import uncompiled
from worker.guided import encode_pixels, paint_guide
from worker.latent_preview import LatentPreview
from worker.loading import LoadedModel, load_model
from worker.prompt_encoder import PromptEncoder, join_encodings
from worker.provenance import describe
from worker.pulse import Memory
from worker.seamless import circular_padding
from worker.spec_check import check_spec

log = logging.getLogger(__name__)

OnStep = Callable[[int, int], None]

# Two steps reach both halves of a second-order sampler; the kernels are those of a render of any length.
WARM_UP_STEPS = 2
WARM_UP_ON_CPU_PX = 256
GUIDED_TENSORS = ["prompt_embeds", "add_text_embeds", "add_time_ids"]
IN_PARTS = {"drawn": "in smaller parts"}


@dataclass(frozen=True, eq=False)
class Rendered:
    """A finished picture: `pixels` is uint8 of shape height x width x 3 in sRGB; `duration_s` from request to pixels."""

    pixels: NDArray[np.uint8]
    duration_s: float


@dataclass(frozen=True, eq=False)
class _Sampler:
    """The library's two pipelines over one UNet: from noise, and from a picture. They share all their models."""

    text: StableDiffusionXLPipeline
    image: StableDiffusionXLImg2ImgPipeline

    @classmethod
    def over(cls, text: StableDiffusionXLPipeline) -> _Sampler:
        image = StableDiffusionXLImg2ImgPipeline(**text.components, add_watermarker=False)
        image.set_progress_bar_config(disable=True)
        return cls(text, image)

    @property
    def unet(self) -> Any:
        return self.text.unet


class Pipeline:
    """One loaded model, ready to render. Get it from `load_pipeline`."""

    def __init__(self, model: LoadedModel, manifest: Manifest) -> None:
        self._sdxl = model.pipeline
        # By the profile that has a UNet of its own; the empty name is the model's.
        self._samplers = {name: _Sampler.over(one.pipeline) for name, one in model.distilled.items()}
        self._samplers[""] = _Sampler.over(model.pipeline)
        self._device = model.device
        self._encoder = PromptEncoder(model.pipeline)
        self._preview = LatentPreview(model.pipeline.vae, manifest.colors.colors)
        self._provenance = describe(model, manifest)
        self._batch_size = manifest.render.batch_size
        self._memory: Memory | None = None
        self._scheduler = model.pipeline.scheduler
        # What is particular to the way in which the last picture was drawn.
        self._manner: dict[str, Any] = {}

    @property
    def device(self) -> torch.device:
        """What it draws on."""
        return self._device

    @property
    def provenance(self) -> dict[str, Any]:
        """What besides the request decided the last picture's pixels, ready for JSON: digests, versions, dtype, device."""
        return self._provenance | self._manner

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
        self._manner = _profile_of(spec)
        try:
            [pixels] = self._draw([spec], on_step)
            return Rendered(pixels, time.perf_counter() - started)
        except OutOfMemory as error:
            log.warning("%s; it is drawn once more, in smaller parts", error)
        # Out here, where the error with all the tensors of its frames is gone.
        with self._lean(self._sampler(spec)):
            [pixels] = self._draw([spec], on_step)
            return Rendered(pixels, time.perf_counter() - started)

    def render_batch(self, specs: Sequence[RenderSpec], on_step: OnStep) -> list[Rendered]:
        """Draw the pictures of 1 to `batch_size` renders in one forward, and return them in their order.

        The renders must `share_forward`. A picture depends neither on its neighbours nor on its place among them: the batch
        always has `batch_size` rows, the missing ones are filled up. Its bits are not those of `render`, for other shapes add
        up in another order; `provenance` says how many rows there were. `duration_s` is that of the whole batch.

        Raises:
            InputInvalid, RenderFailed: as `render`; one picture that cannot be drawn is the end of all.
            OutOfMemory: the device has too little memory for so many at once.
        """
        if not all(share_forward(specs[0], spec) for spec in specs) or len(specs) > self._batch_size:
            raise InputInvalid(f"these {len(specs)} pictures cannot be drawn together")
        for spec in specs:
            check_spec(spec)
        started = time.perf_counter()
        self._manner = _profile_of(specs[0]) | {"batch_size": self._batch_size}
        rows = [*specs, *[specs[-1]] * (self._batch_size - len(specs))]
        pictures = self._draw(rows, on_step)[: len(specs)]
        duration_s = time.perf_counter() - started
        return [Rendered(pixels, duration_s) for pixels in pictures]

    def _sampler(self, spec: RenderSpec) -> _Sampler:
        if spec.distilled not in self._samplers:
            raise InputInvalid(f"this worker's manifest has no profile {spec.distilled!r} with a LoRA", field="profile")
        return self._samplers[spec.distilled]

    @property
    def memory(self) -> Memory | None:
        """How much memory the GPU had and had to give after the last picture; None on a CPU."""
        return self._memory

    def preview(self, row: int) -> NDArray[np.uint8]:
        """Return a rough picture of what is being drawn: sRGB, height / 8 x width / 8 x 3. To be called from `on_step` only.

        `row` tells which of the pictures that are drawn together, from 0. It is of what the sampler expects to come out in
        the end, so it has no noise. It waits for the device.
        """
        return self._preview.pixels(self._scheduler.model_outputs[-1][row])

    def _show_memory(self) -> None:
        if self._device.type != "cuda":
            return
        free_bytes, total_bytes = torch.cuda.mem_get_info(self._device)
        self._memory = Memory(free_bytes, total_bytes, torch.cuda.max_memory_allocated(self._device))
        for kind, size_bytes in (("free", free_bytes), ("total", total_bytes), ("peak", self._memory.peak_bytes)):
            GPU_MEMORY.labels(kind).set(size_bytes)

    def _draw(self, specs: Sequence[RenderSpec], on_step: OnStep) -> list[NDArray[np.uint8]]:
        stopped: list[BaseException] = []
        sampler = self._sampler(specs[0])
        torus = circular_padding(sampler.unet, self._sdxl.vae) if specs[0].seamless else nullcontext()
        eager = uncompiled() if specs[0].seamless or "drawn" in self._manner else nullcontext()
        try:
            with torus, eager:
                # Decoded one by one: a decoder needs more memory than all else, and gains nothing from company.
                pictures = [self._decode(row[None]) for row in self._denoise(sampler, specs, on_step, stopped)]
            self._show_memory()
            return pictures
        except (RuntimeError, ValueError, MemoryError) as error:
            if error in stopped:
                raise
            raise self._translate(error) from error

    @contextmanager
    def _lean(self, sampler: _Sampler) -> Iterator[None]:
        """Work in smaller parts inside the block: attention head by head, the picture tile by tile. It changes pixels."""
        self._manner = self._manner | IN_PARTS
        unet, vae = sampler.unet, self._sdxl.vae
        processors, tiling, slicing = unet.attn_processors, vae.use_tiling, vae.use_slicing
        self._free_memory()
        sampler.text.enable_attention_slicing("max")
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

    def _denoise(
        self, sampler: _Sampler, specs: Sequence[RenderSpec], on_step: OnStep, stopped: list[BaseException]
    ) -> torch.Tensor:
        """Return the finished latents, a row a spec. An exception of `on_step` is put into `stopped` to be known again."""
        spec, self._scheduler = specs[0], sampler.text.scheduler

        def report(sdxl: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            try:
                on_step(index + 1, sdxl.num_timesteps)
            except BaseException as error:
                stopped.append(error)
                raise
            return _without_guidance(sdxl, tensors, len(specs)) if index + 1 == spec.guided_steps and tensors else tensors

        positive = join_encodings([self._encoder.encode(one.prompt) for one in specs])
        negative = join_encodings([self._encoder.encode_negative(one.negative_prompt) for one in specs])
        # The library knows text-to-image and image-to-image as two pipelines; they differ in what the noise is put on.
        sdxl, start = (sampler.text, {"width": spec.width_px, "height": spec.height_px})
        if spec.strength is not None:
            sdxl, start = (sampler.image, self._painted_start(specs))
        latents: torch.Tensor = sdxl(
            prompt_embeds=positive.embeds,
            pooled_prompt_embeds=positive.pooled,
            negative_prompt_embeds=negative.embeds,
            negative_pooled_prompt_embeds=negative.pooled,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            # Noise drawn on the CPU is the same on every device.
            generator=[torch.Generator("cpu").manual_seed(one.seed) for one in specs],
            callback_on_step_end=report,
            callback_on_step_end_tensor_inputs=GUIDED_TENSORS if spec.guided_steps < spec.steps else [],
            output_type="latent",
            **start,
        ).images
        return latents

    def _painted_start(self, specs: Sequence[RenderSpec]) -> dict[str, Any]:
        """Return what image-to-image begins with: the latents of the painted tiles, and how far to noise them."""
        vae, rows = self._sdxl.vae, []
        for spec in specs:
            guide = paint_guide(spec, lambda pixels: self._decode(encode_pixels(vae, pixels)))
            rows.append(encode_pixels(vae, guide, wrap=spec.seamless))
        # The library rounds steps x strength down; half a step more makes that the number that was promised.
        strength = min(1.0, (specs[0].steps + 0.5) / specs[0].num_inference_steps)
        return {"image": torch.cat(rows).to(self._sdxl.unet.dtype), "strength": strength}

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
    """Render once in each way, so that the first job finds everything in its place. Raises RenderFailed, OutOfMemory."""
    spec = _warm_up_spec(manifest, pipeline.device)
    # The model's own way alone is the last: what the provenance says after it is what the worker announces.
    for name in (*manifest.distilled, EXACT):
        one = spec if name == EXACT else manifest.in_profile(spec, name)
        if manifest.render.batch_size > 1:
            pipeline.render_batch([one], lambda step, steps: None)
        pipeline.render(one, lambda step, steps: None)


def _profile_of(spec: RenderSpec) -> dict[str, Any]:
    return {"profile": spec.distilled} if spec.distilled else {}


def _without_guidance(sdxl: Any, tensors: dict[str, Any], rows: int) -> dict[str, Any]:
    """End classifier-free guidance in a running call: only the rows with the prompt are left, behind those without it."""
    sdxl._guidance_scale = 0.0
    return {name: tensor[-rows:] for name, tensor in tensors.items()}


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
        guidance_end=0.5 if manifest.has_unguided_steps else 1.0,
    )
