import copy
import hashlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file

from shared.errors import DeviceLost, InputInvalid, OutOfMemory, PromptInvalid, RenderFailed, WeightsInvalid
from shared.jobs import RenderSpec
from shared.manifest import Lora, Manifest, Render
from shared.settings import Settings
from training.architecture import EMBEDDINGS_FILE, LORA_FILE
from worker.loading import build_scheduler, place_pipeline
from worker.pipeline import Pipeline, load_pipeline
from worker.prompt_encoder import PromptEncoder

# More threads than idle cores wait for each other: one is the fastest on a machine that has other work.
THREADS = 1
SPEC = RenderSpec(
    prompt="ohwx_rubber_tile <s0><s1>, 50% red, 50% black, photorealistic rubber tile",
    negative_prompt="blurry",
    seed=7,
    num_inference_steps=3,
    guidance_scale=7.0,
    width_px=128,
    height_px=128,
    output_format="png",
    output_quality=100,
)


def ignore(step: int, steps: int) -> None:
    pass


@pytest.fixture(scope="module")
def manifest(random_mini: Manifest) -> Manifest:
    return random_mini


@dataclass
class Watch:
    """What was seen from outside: addresses that were asked for, and calls of the library's pipeline by anybody."""

    addresses: list[Any] = field(default_factory=list)
    calls: int = 0
    calls_while_loading: int = 0


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def pipeline(manifest: Manifest, watch: Watch) -> Iterator[Pipeline]:
    """The warm pipeline in its production dtype, loaded on a machine whose network refuses and counted from the start."""
    original = StableDiffusionXLPipeline.__call__

    def refuse(_: socket.socket, address: Any) -> None:
        watch.addresses.append(address)
        raise OSError("the network is off")

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        watch.calls += 1
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StableDiffusionXLPipeline, "__call__", counted)
        with pytest.MonkeyPatch.context() as network:
            network.setattr(socket.socket, "connect", refuse)
            network.setattr(socket, "getaddrinfo", refuse)
            loaded = load_pipeline(manifest, Settings(torch_threads=THREADS))
        watch.calls_while_loading = watch.calls
        yield loaded


@pytest.fixture(scope="module")
def expected(pipeline: Pipeline) -> np.ndarray:
    return pipeline.render(SPEC, ignore).pixels


@pytest.fixture(scope="module")
def exact_pipeline(manifest: Manifest) -> Pipeline:
    """The same model in float32, where it can be compared with the library to the last bit."""
    return load_pipeline(manifest, Settings(dtype="float32", torch_threads=THREADS))


def test_loading_draws_once_and_never_touches_the_network(pipeline: Pipeline, watch: Watch) -> None:
    assert watch.addresses == []
    assert watch.calls_while_loading == 1


def test_a_render_is_one_call_of_the_library_and_reports_every_step(pipeline: Pipeline, watch: Watch) -> None:
    before, steps = watch.calls, []
    rendered = pipeline.render(replace(SPEC, width_px=128, height_px=192), lambda step, total: steps.append((step, total)))
    assert watch.calls == before + 1
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert rendered.pixels.shape == (192, 128, 3)
    assert rendered.pixels.dtype == np.uint8
    assert rendered.duration_s > 0


def test_the_same_request_gives_the_same_bytes_and_another_seed_others(pipeline: Pipeline, expected: np.ndarray) -> None:
    assert np.array_equal(pipeline.render(SPEC, ignore).pixels, expected)
    assert not np.array_equal(pipeline.render(replace(SPEC, seed=8), ignore).pixels, expected)


def test_the_picture_is_the_one_that_the_library_itself_draws(
    exact_pipeline: Pipeline, manifest: Manifest, checkpoint_dir: Path
) -> None:
    """The reference goes by the library's own front doors: text in, PIL out, LoRA from the file, embeddings by name."""
    library = StableDiffusionXLPipeline.from_pretrained(checkpoint_dir, local_files_only=True, add_watermarker=False)
    library.scheduler = build_scheduler(manifest.render.scheduler)
    library.load_lora_weights(str(checkpoint_dir / LORA_FILE))
    library.fuse_lora(components=["unet"], lora_scale=0.7)
    library.unload_lora_weights()
    rows = load_file(checkpoint_dir / EMBEDDINGS_FILE)
    for name, suffix in (("clip_l", ""), ("clip_g", "_2")):
        tokenizer, encoder = getattr(library, "tokenizer" + suffix), getattr(library, "text_encoder" + suffix)
        library.load_textual_inversion(list(rows[name]), token=["<s0>", "<s1>"], tokenizer=tokenizer, text_encoder=encoder)
    for part in (library.unet, library.vae):
        part.to(memory_format=torch.channels_last)
    library.set_progress_bar_config(disable=True)
    image = library(
        SPEC.prompt,
        negative_prompt=SPEC.negative_prompt,
        num_inference_steps=SPEC.num_inference_steps,
        guidance_scale=SPEC.guidance_scale,
        width=SPEC.width_px,
        height=SPEC.height_px,
        generator=torch.Generator("cpu").manual_seed(SPEC.seed),
    ).images[0]
    assert np.array_equal(exact_pipeline.render(SPEC, ignore).pixels, np.asarray(image))


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [Stop(), RuntimeError("mine"), ValueError("mine"), KeyboardInterrupt()])
def test_what_on_step_raises_ends_the_render_unchanged_and_leaves_the_pipeline_exact(
    pipeline: Pipeline, expected: np.ndarray, error: BaseException
) -> None:
    def stop(step: int, steps: int) -> None:
        if step == 2:
            raise error

    with pytest.raises(type(error)) as caught:
        pipeline.render(replace(SPEC, seed=99, num_inference_steps=5), stop)
    assert caught.value is error
    assert np.array_equal(pipeline.render(SPEC, ignore).pixels, expected)


def test_no_negative_prompt_an_empty_one_and_a_text_are_three_requests(pipeline: Pipeline) -> None:
    pictures = [pipeline.render(replace(SPEC, negative_prompt=text), ignore).pixels for text in (None, "", "blurry")]
    assert not any(np.array_equal(pictures[a], pictures[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0])
def test_guidance_off_and_a_single_step_render(pipeline: Pipeline, guidance_scale: float) -> None:
    spec = replace(SPEC, guidance_scale=guidance_scale, num_inference_steps=1)
    assert pipeline.render(spec, ignore).pixels.std() > 0


@pytest.mark.parametrize(
    ("change", "at_fault"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"width_px": 130}, "width"),
        ({"height_px": 0}, "height"),
        ({"prompt": "red " * 90}, "prompt"),
        ({"negative_prompt": "red " * 90}, "negative_prompt"),
    ],
)
def test_what_cannot_be_rendered_is_refused_by_field(pipeline: Pipeline, change: dict[str, Any], at_fault: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        pipeline.render(replace(SPEC, **change), ignore)
    assert caught.value.field == at_fault


def test_the_largest_seed_renders(pipeline: Pipeline) -> None:
    assert pipeline.render(replace(SPEC, seed=2**32 - 1), ignore).pixels.std() > 0


def test_a_picture_too_large_for_the_memory_is_called_that_and_may_be_retried(pipeline: Pipeline, expected: np.ndarray) -> None:
    with pytest.raises(OutOfMemory) as caught:
        pipeline.render(replace(SPEC, width_px=2**23, height_px=2**23), ignore)
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert np.array_equal(pipeline.render(SPEC, ignore).pixels, expected)


def test_what_does_not_fit_at_first_is_drawn_in_smaller_parts_and_the_next_picture_as_ever(
    pipeline: Pipeline, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, processors = pipeline._sdxl.unet.forward, []

    def short_of_memory(*given: Any, **named: Any) -> Any:
        processors.append({type(processor).__name__ for processor in pipeline._sdxl.unet.attn_processors.values()})
        if len(processors) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(*given, **named)

    monkeypatch.setattr(pipeline._sdxl.unet, "forward", short_of_memory)
    lean = pipeline.render(SPEC, ignore).pixels
    assert len(processors) == 2 + SPEC.num_inference_steps
    assert processors[0] == {"AttnProcessor2_0"} and processors[-1] == {"SlicedAttnProcessor"}
    assert np.corrcoef(lean.ravel(), expected.ravel())[0, 1] > 0.8
    assert pipeline.provenance["drawn"] == "in smaller parts"
    assert np.array_equal(pipeline.render(SPEC, ignore).pixels, expected)
    assert processors[-1] == {"AttnProcessor2_0"} and "drawn" not in pipeline.provenance


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), OutOfMemory),
        (RuntimeError("CUDA error: out of memory"), OutOfMemory),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), DeviceLost),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RenderFailed),
    ],
)
def test_failures_of_the_device_are_translated(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, raised: RuntimeError, becomes: type[RenderFailed]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(pipeline._sdxl.unet, "forward", fail)
    with pytest.raises(becomes, match=str(raised).split(".")[0]) as caught:
        pipeline.render(SPEC, ignore)
    assert type(caught.value) is becomes


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_picture_that_is_not_finite_fails_instead_of_coming_out_black_or_white(
    pipeline: Pipeline, expected: np.ndarray, poison: float
) -> None:
    bias = pipeline._sdxl.vae.decoder.conv_out.bias
    healthy = bias.clone()
    bias.data[1] = poison
    try:
        with pytest.raises(RenderFailed, match="NaN or infinity: the model overflows in bfloat16"):
            pipeline.render(SPEC, ignore)
    finally:
        bias.data.copy_(healthy)
    assert np.array_equal(pipeline.render(SPEC, ignore).pixels, expected)


def test_remembered_encodings_are_the_librarys_and_the_oldest_is_forgotten(exact_pipeline: Pipeline) -> None:
    sdxl = exact_pipeline._sdxl
    with torch.no_grad():
        positive, negative, pooled, negative_pooled = sdxl.encode_prompt(SPEC.prompt, negative_prompt=SPEC.negative_prompt)
        _, zeros, _, _ = sdxl.encode_prompt(SPEC.prompt)
    encoder = PromptEncoder(sdxl, entries=2)
    first, second = encoder.encode(SPEC.prompt), encoder.encode_negative(SPEC.negative_prompt)
    assert torch.equal(first.embeds, positive) and torch.equal(first.pooled, pooled)
    assert torch.equal(second.embeds, negative) and torch.equal(second.pooled, negative_pooled)
    assert torch.equal(PromptEncoder(sdxl).encode_negative(None).embeds, zeros)
    assert encoder.encode(SPEC.prompt) is first
    encoder.encode("a third text")
    assert encoder.encode(SPEC.prompt) is first
    again = encoder.encode_negative(SPEC.negative_prompt)
    assert again is not second and torch.equal(again.embeds, second.embeds)


def test_a_text_of_exactly_77_tokens_is_read_and_one_more_refused(pipeline: Pipeline) -> None:
    encoder = PromptEncoder(pipeline._sdxl)
    assert encoder.encode("red " * 75).embeds.shape[1] == 77
    with pytest.raises(PromptInvalid, match="has 78 tokens, the model reads 77"):
        encoder.encode("red " * 76)


def test_provenance_is_json_and_names_what_was_loaded(pipeline: Pipeline, manifest: Manifest, checkpoint_dir: Path) -> None:
    provenance = json.loads(json.dumps(pipeline.provenance))
    for part, file in (("lora", LORA_FILE), ("textual_inversion", EMBEDDINGS_FILE)):
        assert provenance["sha256"][part] == hashlib.sha256((checkpoint_dir / file).read_bytes()).hexdigest()
    assert len(provenance["sha256"]["base"]) == 64
    assert (provenance["model"], provenance["version"]) == (manifest.slug, manifest.version)
    assert (provenance["lora_strength"], provenance["dtype"], provenance["batch_size"]) == (0.7, "bfloat16", 1)
    assert provenance["libraries"]["torch"] == torch.__version__
    assert provenance["scheduler"]["use_karras_sigmas"] is True
    pipeline.provenance.clear()
    assert pipeline.provenance["model"] == manifest.slug


def test_lora_and_embeddings_both_reach_the_picture(manifest: Manifest, exact_pipeline: Pipeline) -> None:
    assert isinstance(manifest.lora, Lora)
    expected = exact_pipeline.render(SPEC, ignore).pixels
    unadapted = manifest.model_copy(update={"lora": manifest.lora.model_copy(update={"strength": 0.0})})
    untaught = manifest.model_copy(update={"textual_inversion": None})
    for other in (unadapted, untaught):
        pipeline = load_pipeline(other, Settings(dtype="float32", torch_threads=THREADS))
        assert not np.array_equal(pipeline.render(SPEC, ignore).pixels, expected)


def test_the_manifest_decides_slicing_tiling_and_sampler(
    pipeline: Pipeline, manifest: Manifest, pristine_pipeline: Any
) -> None:
    assert pipeline._sdxl.vae.use_slicing == manifest.render.vae_slicing
    assert pipeline._sdxl.vae.use_tiling == manifest.render.vae_tiling
    wanted = manifest.render.scheduler.model_dump()
    assert {name: pipeline._sdxl.scheduler.config[name] for name in wanted} == wanted
    parts = {name: copy.deepcopy(part) for name, part in pristine_pipeline.components.items()}
    other = type(pristine_pipeline)(**parts, add_watermarker=False)
    place_pipeline(other, Render(vae_slicing=False, vae_tiling=True), device=torch.device("cpu"), dtype=torch.float32)
    assert (other.vae.use_slicing, other.vae.use_tiling) == (False, True)


def test_a_vae_that_overflows_in_float16_stays_in_float32(pristine_pipeline: Any) -> None:
    parts = {name: copy.deepcopy(part) for name, part in pristine_pipeline.components.items()}
    parts["vae"].register_to_config(force_upcast=True)
    other = type(pristine_pipeline)(**parts, add_watermarker=False)
    place_pipeline(other, Render(), device=torch.device("cpu"), dtype=torch.float16)
    assert (other.unet.dtype, other.vae.dtype) == (torch.float16, torch.float32)


@pytest.mark.parametrize(
    ("part", "update", "says"),
    [
        ("lora", {"sha256": "0" * 64}, f"{LORA_FILE}.*pins {'0' * 64}"),
        ("lora", {"size_bytes": 101961928}, f"{LORA_FILE}.*pins 101961928"),
        ("lora", {"file": "gone.safetensors"}, "gone.safetensors does not exist"),
        ("textual_inversion", {"sha256": "0" * 64}, f"{EMBEDDINGS_FILE}.*pins"),
        ("textual_inversion", {"tokens": ("<s0>",)}, "has 2 rows for 1 tokens"),
    ],
)
def test_a_model_that_is_not_as_its_manifest_says_does_not_load(
    manifest: Manifest, part: str, update: dict[str, Any], says: str
) -> None:
    changed = manifest.model_copy(update={part: getattr(manifest, part).model_copy(update=update)})
    with pytest.raises(WeightsInvalid, match=says):
        load_pipeline(changed, Settings(torch_threads=THREADS))


def test_lora_and_embeddings_given_for_each_other_do_not_load(manifest: Manifest, checkpoint_dir: Path) -> None:
    assert manifest.lora is not None
    swapped = manifest.lora.model_copy(update={"file": str(checkpoint_dir / EMBEDDINGS_FILE)})
    with pytest.raises(WeightsInvalid, match=f"{EMBEDDINGS_FILE}: 2 of its keys adapt nothing"):
        load_pipeline(manifest.model_copy(update={"lora": swapped}), Settings(torch_threads=THREADS))


def test_a_hub_base_that_cannot_be_reached_says_so(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise socket.gaierror("the network is off")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(WeightsInvalid, match="hub:nobody/nothing-here cannot be fetched"):
        load_pipeline(manifest.model_copy(update={"base": "hub:nobody/nothing-here"}), Settings(torch_threads=THREADS))
