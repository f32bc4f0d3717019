"""The loader's verdict on files, before any worker is started: `python -m worker.verdict [--model owner/name] [FILE...]`.

The same code looks at a file here and in a worker that loads it. The base is built from its configuration alone, without
weights, so a file for full-size SDXL is judged in seconds on any machine; `--load` goes all the way. One JSON object for each
file is written to standard output. `granule models check` shows them to a person.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from shared.errors import GranuleError, WeightsInvalid
from shared.manifest import Distilled, Lora, Manifest, TextualInversion, load_catalog
from shared.settings import Settings, load_settings
from worker.base_model import inspect_base, load_tokenizer, locate_base
from worker.embeddings import Encoder, check_unknown, match_rows
from worker.loading import build_scheduler, load_model, quieten_libraries
from worker.lora import check_components
from worker.lora_keys import TEXT_ENCODER, TEXT_ENCODER_2, UNET, LoraLayer, parse_layers
from worker.weights import inspect_file, read_metadata, read_tensors

Kind = Literal["lora", "textual_inversion", "base"]

LORA_MARKS = ("lora", "hada_", "lokr_", "oft_", "dora_scale")
ROWS_MAX = 256
"""A textual inversion has a row for each of a few tokens; anything taller is no such file."""


@dataclass(frozen=True)
class Verdict:
    """What the loader thinks of a file, or of a base's folder. `refusal` is None when it would load; `facts` are what it saw.

    `kind` is None when the file did not get far enough to tell.
    """

    path: str
    model: str
    kind: Kind | None
    refusal: str | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class Skeleton:
    """A base of the right shape without its weights."""

    folder: Path

    @cached_property
    def components(self) -> dict[str, nn.Module]:
        """The modules that a LoRA can adapt, on torch's meta device. Raises WeightsInvalid."""
        try:
            with torch.device("meta"):
                unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(self.folder / "unet"))
                one = CLIPTextModel(self._text_config(TEXT_ENCODER))
                two = CLIPTextModelWithProjection(self._text_config(TEXT_ENCODER_2))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise WeightsInvalid(f"{self.folder}: its configuration describes no SDXL base: {error}") from error
        return {UNET: unet, TEXT_ENCODER: one, TEXT_ENCODER_2: two}

    @cached_property
    def encoders(self) -> tuple[Encoder, Encoder]:
        """The two text encoders with their tokenizers. Raises WeightsInvalid."""
        parts: Mapping[str, Any] = self.components
        return (
            Encoder(TEXT_ENCODER, load_tokenizer(self.folder / "tokenizer"), parts[TEXT_ENCODER]),
            Encoder(TEXT_ENCODER_2, load_tokenizer(self.folder / "tokenizer_2"), parts[TEXT_ENCODER_2]),
        )

    def _text_config(self, part: str) -> CLIPTextConfig:
        return CLIPTextConfig.from_pretrained(self.folder / part, local_files_only=True)


class Judge:
    """Judges files for one model. `tokens` replace those of its manifest; with `load` each file is loaded into the base."""

    def __init__(self, manifest: Manifest, settings: Settings, *, tokens: tuple[str, ...] = (), load: bool = False) -> None:
        self._manifest = manifest
        # On the CPU: a worker may be busy on the GPU.
        self._settings = settings.model_copy(update={"device": "cpu"})
        inversion = manifest.textual_inversion
        self._tokens = tokens or (inversion.tokens if inversion else ())
        self._load = load

    def all_files(self) -> list[Verdict]:
        """Judge every file that the manifest names."""
        verdicts = [self.base()]
        for part in self._manifest.files:
            verdicts.append(self.file(self._manifest.path_of(part.file, self._settings.weights_dir)))
        return verdicts

    def base(self) -> Verdict:
        """Judge the base's files."""
        folder = self._manifest.path_of(self._manifest.base, self._settings.weights_dir)
        facts: dict[str, Any] = {}
        scheduler = build_scheduler(self._manifest.render.scheduler)

        def judge() -> None:
            found = inspect_base(self._skeleton.folder, scheduler, sha256=self._manifest.base_sha256)
            facts["sha256"] = found.sha256
            facts["parameters"] = sum(p.numel() for part in self._skeleton.components.values() for p in part.parameters())

        return Verdict(str(folder), self._manifest.slug, "base", _refusal(judge), facts)

    def file(self, path: Path) -> Verdict:
        """Judge one file: is it sound, what is it, does all of it fit the base."""
        facts: dict[str, Any] = {}
        kinds: list[Kind] = []

        def judge() -> None:
            pins = self._pins_of(path)
            found = inspect_file(path, sha256=pins.sha256 if pins else None, size_bytes=pins.size_bytes if pins else None)
            facts.update(size_bytes=found.size_bytes, sha256=found.sha256, mode=f"{path.stat().st_mode & 0o777:04o}")
            tensors = read_tensors(path)
            facts["dtype"] = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}))
            kinds.append(kind_of(tensors))
            if kinds[0] == "lora":
                layers = parse_layers(path, tensors, read_metadata(path), self._skeleton.components)
                facts.update(describe_layers(layers))
                if isinstance(pins, Distilled):
                    check_components(path, layers, (UNET,))
            else:
                check_unknown(path, self._tokens, self._skeleton.encoders)
                rows = match_rows(path, tensors, self._tokens, self._skeleton.encoders)
                facts.update({name: list(table.shape) for name, table in rows.items()}, tokens=list(self._tokens))
            if self._load:
                load_model(self._with(path, kinds[0]), self._settings)
                facts["loaded"] = True

        refusal = _refusal(judge)
        return Verdict(str(path), self._manifest.slug, kinds[0] if kinds else None, refusal, facts)

    @cached_property
    def _skeleton(self) -> Skeleton:
        if self._manifest.hub_id is None:
            return Skeleton(locate_base(self._manifest, self._settings.weights_dir))
        try:
            return Skeleton(Path(snapshot_download(self._manifest.hub_id, local_files_only=True)))
        except (LocalEntryNotFoundError, OSError) as error:
            raise WeightsInvalid(f"the base {self._manifest.base} was not fetched to this machine yet") from error

    def _pins_of(self, path: Path) -> Lora | TextualInversion | None:
        for part in self._manifest.files:
            if self._manifest.path_of(part.file, self._settings.weights_dir).resolve() == path.resolve():
                return part
        return None

    def _with(self, path: Path, kind: Kind) -> Manifest:
        """The manifest with this file in the place of its own of that kind. One of a profile is in its place already."""
        place = str(path.resolve())
        if isinstance(self._pins_of(path), Distilled):
            return self._manifest
        if kind == "textual_inversion":
            return self._manifest.model_copy(update={kind: TextualInversion(file=place, tokens=self._tokens)})
        own = self._manifest.lora
        return self._manifest.model_copy(update={"lora": Lora(file=place, strength=own.strength if own else 0.7)})


def kind_of(tensors: Mapping[str, torch.Tensor]) -> Kind:
    """Tell a LoRA from a textual inversion: by its keys, else by whether it holds nothing but a few short tables."""
    if any(mark in key.lower() for key in tensors for mark in LORA_MARKS):
        return "lora"
    tables = all(tensor.dim() == 2 and tensor.shape[0] <= ROWS_MAX for tensor in tensors.values())
    return "textual_inversion" if tables and len(tensors) <= ROWS_MAX else "lora"


def describe_layers(layers: tuple[LoraLayer, ...]) -> dict[str, Any]:
    """Count the layers by component; ranks and alphas as the set of those that occur."""
    return {
        "layers": dict(Counter(layer.component for layer in layers)),
        "ranks": sorted({layer.rank for layer in layers}),
        "alphas": sorted({layer.alpha for layer in layers}),
    }


def _refusal(judge: Callable[[], None]) -> str | None:
    try:
        judge()
    except GranuleError as error:
        return error.detail
    return None


def main() -> int:
    """Write a verdict for each file named, or for all of the model's. The status is 1 when one is refused."""
    parser = argparse.ArgumentParser(prog="python -m worker.verdict", description="Says whether files would load.")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--tokens", default="")
    parser.add_argument("--load", action="store_true")
    arguments = parser.parse_args()
    quieten_libraries()
    try:
        settings = load_settings()
        manifest = load_catalog(settings.models_dir).by_slug(arguments.model or settings.model)
    except GranuleError as error:
        sys.stderr.write(f"{error.detail}\n")
        return 2
    tokens = tuple(token.strip() for token in arguments.tokens.split(",") if token.strip())
    judge = Judge(manifest, settings, tokens=tokens, load=arguments.load)
    verdicts = [judge.file(path) for path in arguments.files] if arguments.files else judge.all_files()
    for verdict in verdicts:
        sys.stdout.write(json.dumps(asdict(verdict)) + "\n")
    return 1 if any(verdict.refusal for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
