"""Find and load the base: an SDXL checkpoint in diffusers' folder layout, in float32 on the CPU.

Every part is loaded by its known class, from safetensors only and from local files only. A part whose file lacks a tensor
is refused: the libraries would fill the gap with random numbers and a warning.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from huggingface_hub.errors import HfHubHTTPError
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from shared.errors import ManifestInvalid, WeightsInvalid
from shared.manifest import TRAINED_FIELDS, Manifest
from worker.weights import WeightsFile, check_finite, digest_files, inspect_file, read_opening

INDEX_FILE = "model_index.json"
PIPELINE_CLASS = "StableDiffusionXLPipeline"
# Part of the pipeline (also its folder) -> its class and the name its weights file begins with.
MODEL_PARTS: dict[str, tuple[Any, str]] = {
    "text_encoder": (CLIPTextModel, "model"),
    "text_encoder_2": (CLIPTextModelWithProjection, "model"),
    "vae": (AutoencoderKL, "diffusion_pytorch_model"),
    "unet": (UNet2DConditionModel, "diffusion_pytorch_model"),
}
TOKENIZER_PARTS = ("tokenizer", "tokenizer_2")
SCHEDULER_FILE = "scheduler/scheduler_config.json"
# Full precision first: half-precision files are taken where they are the only ones.
VARIANTS = (None, "fp16")


@dataclass(frozen=True)
class BaseModel:
    """A loaded base. `sha256` is the digest over its weights files (see `digest_files`)."""

    pipeline: StableDiffusionXLPipeline
    sha256: str


@dataclass(frozen=True)
class BaseFiles:
    """A base whose files were checked: the variant of each part that would be loaded, and the digest over all of them."""

    variants: dict[str, str | None]
    sha256: str


def locate_base(manifest: Manifest, weights_dir: Path | None) -> Path:
    """Return the folder of the manifest's base; a `hub:` base is downloaded to the hub's cache first.

    Only a manifest that names a hub id makes this process use the network.

    Raises:
        WeightsInvalid: the folder is absent or no SDXL pipeline, or the hub cannot be reached.
    """
    if manifest.hub_id is None:
        folder = manifest.path_of(manifest.base, weights_dir)
    else:
        try:
            folder = Path(StableDiffusionXLPipeline.download(manifest.hub_id, use_safetensors=True))
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise WeightsInvalid(f"the base {manifest.base} cannot be fetched from the model hub: {error}") from error
    if not folder.is_dir():
        raise WeightsInvalid(f"{folder} is no folder; put the base model of {manifest.slug} there or correct its manifest")
    found = _read_index(folder).get("_class_name")
    if found != PIPELINE_CLASS:
        raise WeightsInvalid(f"{folder / INDEX_FILE} is for {found}; the base must be a {PIPELINE_CLASS}")
    return folder


def load_base(folder: Path, scheduler: DPMSolverMultistepScheduler, *, sha256: str | None = None) -> BaseModel:
    """Check every file of the base, compare their digest with the pin `sha256`, and load them.

    Raises:
        ManifestInvalid: `scheduler` states another noise schedule or prediction type than the base was trained with.
        WeightsInvalid: a file is refused by `inspect_file`, the digest differs from the pin, a part is incomplete or of
            another shape than its configuration says, or a tensor is not finite.
    """
    index = _read_index(folder)
    files = inspect_base(folder, scheduler, sha256=sha256)
    tokenizers = {part: load_tokenizer(folder / part) for part in TOKENIZER_PARTS}
    parts = {part: _load_model(folder / part, kind, files.variants[part]) for part, (kind, _) in MODEL_PARTS.items()}
    for tokenizer, encoder in zip(tokenizers.values(), (parts["text_encoder"], parts["text_encoder_2"]), strict=True):
        _check_tokenizer(folder, tokenizer, encoder)
    vae_config = parts["vae"].config
    if vae_config.latents_mean is not None or vae_config.latents_std is not None:
        raise WeightsInvalid(f"{folder / 'vae'}: latents_mean and latents_std are not supported; SDXL's own VAE has neither")
    pipeline = StableDiffusionXLPipeline(
        **parts,
        **tokenizers,
        scheduler=scheduler,
        force_zeros_for_empty_prompt=index.get("force_zeros_for_empty_prompt", True),
        add_watermarker=False,
    )
    return BaseModel(pipeline, files.sha256)


def inspect_base(folder: Path, scheduler: DPMSolverMultistepScheduler, *, sha256: str | None = None) -> BaseFiles:
    """Check every file of the base, and their digest against the pin `sha256`, and load nothing.

    Raises:
        ManifestInvalid: `scheduler` states another noise schedule or prediction type than the base was trained with.
        WeightsInvalid: a file is absent or refused by `inspect_file`, or the digest differs from the pin.
    """
    _check_schedule(folder, scheduler)
    found = {part: _find_weights(folder / part, stem) for part, (_, stem) in MODEL_PARTS.items()}
    for part in (*MODEL_PARTS, *TOKENIZER_PARTS):
        _check_texts(folder / part)
    files = [inspect_file(path) for paths, _ in found.values() for path in paths]
    digest = _check_digest(folder, files, sha256)
    return BaseFiles({part: variant for part, (_, variant) in found.items()}, digest)


def _read_index(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = _read_json(folder / INDEX_FILE)
    return index


def _read_json(path: Path) -> Any:
    read_opening(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsInvalid(f"{path} is not JSON: {error}; fetch the file again") from error


def _check_texts(folder: Path) -> None:
    """Look at configurations and vocabularies, whose damage the libraries report in words that name no file."""
    for path in sorted(folder.glob("*.txt")):
        read_opening(path)
    for path in sorted(folder.glob("*.json")):
        _read_json(path)


def _check_schedule(folder: Path, scheduler: DPMSolverMultistepScheduler) -> None:
    if not (folder / SCHEDULER_FILE).exists():
        return
    trained = _read_json(folder / SCHEDULER_FILE)
    for field in TRAINED_FIELDS:
        if field in trained and trained[field] != scheduler.config[field]:
            raise ManifestInvalid(
                f"render.scheduler.{field} is {scheduler.config[field]} but {folder / SCHEDULER_FILE} says the base was "
                f"trained with {trained[field]}; correct the manifest"
            )


def _find_weights(folder: Path, stem: str) -> tuple[list[Path], str | None]:
    """Return the weights files of one part, one or many shards, and the variant they are of."""
    for variant in VARIANTS:
        dotted = f".{variant}" if variant else ""
        whole = folder / f"{stem}{dotted}.safetensors"
        shards = folder / f"{stem}.safetensors.index{dotted}.json"
        if whole.exists():
            return [whole], variant
        if shards.exists():
            try:
                names = set(_read_json(shards)["weight_map"].values())
            except (KeyError, TypeError, AttributeError) as error:
                raise WeightsInvalid(f"{shards} is no index of shards: {error!r}; fetch the file again") from error
            return [folder / name for name in sorted(names)], variant
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    only = f"there is only {pickles[0]}, a pickle; convert it" if pickles else "fetch the base model again"
    raise WeightsInvalid(f"{folder} holds no {stem}.safetensors: {only}")


def _check_digest(folder: Path, files: list[WeightsFile], pin: str | None) -> str:
    digest = digest_files(folder, files)
    if pin is not None and digest != pin:
        raise WeightsInvalid(
            f"{folder}: its weights files have the digest {digest} but the manifest pins {pin}; "
            "fetch the base model again, or change base_sha256"
        )
    return digest


def _load_model(folder: Path, kind: Any, variant: str | None) -> Any:
    try:
        model, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            variant=variant,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # a damaged configuration fails in whatever class the code it misleads happens to raise
        raise WeightsInvalid(f"{folder} cannot be loaded as {kind.__name__}: {error}") from error
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise WeightsInvalid(
            f"{folder}: {len(absent)} tensors are absent or of a wrong shape, such as {absent[0]}; fetch the base model again"
        )
    check_finite(folder, model.named_parameters())
    return model.eval()


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Load one of the base's tokenizers. Raises WeightsInvalid."""
    try:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises no narrower class
        raise WeightsInvalid(f"{folder} cannot be loaded as a CLIP tokenizer: {error}") from error
    return tokenizer


def _check_tokenizer(folder: Path, tokenizer: CLIPTokenizer, encoder: Any) -> None:
    """Refuse a tokenizer of another length than its encoder: ids or padding would be silently wrong."""
    if len(tokenizer) != encoder.config.vocab_size:
        raise WeightsInvalid(
            f"{folder}: a tokenizer knows {len(tokenizer)} tokens, its text encoder {encoder.config.vocab_size}; "
            "they are of different models, or vocab.json is incomplete"
        )
    if tokenizer.model_max_length != encoder.config.max_position_embeddings:
        raise WeightsInvalid(
            f"{folder}: a tokenizer pads to {tokenizer.model_max_length} tokens, its text encoder reads "
            f"{encoder.config.max_position_embeddings}; set model_max_length in tokenizer_config.json"
        )
