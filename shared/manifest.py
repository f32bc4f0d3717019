"""Model manifests: one TOML file says everything about a model except its weights.

The API reads them to know which models exist and how to build a prompt; the render worker reads the same file to know
what to load and how to draw. `docs/models.md` explains every key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.errors import ManifestInvalid, ModelUnknown
from shared.jobs import RenderSpec
from shared.palette import Palette, load_palette

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

GuidanceMode = Literal["plain", "guided"]
"""How the model is led to the ordered shares: by the words alone, or by a painted tile that has them."""

HUB_PREFIX = "hub:"
TRAINED_FIELDS = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type")
"""The fields of a scheduler that the base was trained with: other values draw noise and raise nothing."""
EXACT = "exact"
"""The profile that every model has: drawn as its `[render]` says, with nothing left out."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Lora(_Table):
    """The LoRA file, the strength it is fused at, and optional pins of the file."""

    file: str
    strength: float = Field(0.7, ge=0, le=2)
    sha256: Sha256 | None = None
    size_bytes: int | None = Field(None, gt=0)


class TextualInversion(_Table):
    """The embeddings file, the tokens its rows belong to (in order), and optional pins of the file."""

    file: str
    tokens: tuple[str, ...] = Field(min_length=1)
    sha256: Sha256 | None = None
    size_bytes: int | None = Field(None, gt=0)


class Prompt(_Table):
    """How the text that the model sees is built.

    `template` holds `{prompt}` once; `trigger` is the part that must stand in the result exactly once. `negative_prompt` is
    what an order that names none gets; without one it is SDXL's own nothing, zeros, which is not the same as empty text.
    """

    template: str
    trigger: str
    negative_prompt: str | None = None

    @model_validator(mode="after")
    def _check_template(self) -> Prompt:
        if self.template.count("{prompt}") != 1:
            raise ValueError("template must contain {prompt} exactly once")
        if self.template.count(self.trigger) != 1:
            raise ValueError("template must contain the trigger exactly once")
        return self

    def fill(self, words: str) -> str:
        """Return the full prompt for the words of an order."""
        return self.template.replace("{prompt}", words)


class Scheduler(_Table):
    """Every field of diffusers' DPMSolverMultistepScheduler that shapes the picture, stated rather than inherited."""

    algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++"] = "dpmsolver++"
    solver_order: int = Field(2, ge=1, le=3)
    solver_type: Literal["midpoint", "heun"] = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    use_karras_sigmas: bool = True
    timestep_spacing: Literal["leading", "linspace", "trailing"] = "leading"
    steps_offset: int = Field(1, ge=0)
    num_train_timesteps: int = Field(1000, ge=1)
    beta_start: float = Field(0.00085, gt=0)
    beta_end: float = Field(0.012, gt=0)
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"


class Render(_Table):
    """Defaults of one render. Sizes in pixels, multiples of 8.

    `guidance_mode` is what an order gets that names none; `strength` is how far, 0 to 1, a painted tile is noised before a
    guided picture is drawn from it, and `granule_px` the mean width of its granules. `compile_mode` is that of `torch.compile`
    (`reduce-overhead` replays CUDA graphs). `batch_size` jobs are drawn together where so many that can be are next in line;
    with 1 each is drawn alone.
    """

    num_inference_steps: int = Field(20, ge=1, le=200)
    guidance_scale: float = Field(7.0, ge=0, le=50)
    width_px: int = Field(1024, ge=64, le=2048, multiple_of=8)
    height_px: int = Field(1024, ge=64, le=2048, multiple_of=8)
    guidance_mode: GuidanceMode = "plain"
    strength: float = Field(0.3, gt=0, le=1)
    granule_px: float = Field(34.0, ge=6, le=256)
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    compile: bool = False
    compile_mode: Literal["default", "reduce-overhead"] = "default"
    batch_size: int = Field(1, ge=1, le=16)
    vae_slicing: bool = True
    vae_tiling: bool = False
    scheduler: Scheduler = Scheduler()

    @property
    def can_be_guided(self) -> bool:
        """Whether a tile can be painted for it: tiles are square, and granules at most a quarter as wide."""
        return self.width_px == self.height_px >= 4 * self.granule_px

    @model_validator(mode="after")
    def _check_guidance(self) -> Render:
        if self.guidance_mode == "guided" and not self.can_be_guided:
            raise ValueError("guided pictures are square, and at least four granules wide")
        return self


class Distilled(Lora):
    """A LoRA that teaches the UNet to draw in a few steps, on top of the model's own."""

    strength: float = Field(1.0, ge=0, le=2)


class Profile(_Table):
    """Another way to draw than the model's own, for orders that ask for it by name. What is unset is as in `[render]`.

    With a `lora` the profile has a UNet, and may have a `scheduler`, of its own: what draws in a few steps was taught just
    these. `guidance_end` is the part of the steps, counted from the first, that are guided; a step without guidance
    takes half the work. Guidance matters early and hardly late (Kynkäänniemi et al., "Applying guidance in a limited interval
    improves sample and distribution quality in diffusion models", 2024).
    """

    num_inference_steps: int | None = Field(None, ge=1, le=200)
    guidance_scale: float | None = Field(None, ge=0, le=50)
    guidance_end: float = Field(1.0, gt=0, le=1)
    lora: Distilled | None = None
    scheduler: Scheduler | None = None


class Manifest(_Table):
    """One model. `folder` is where the file lies; relative weight paths are looked up there unless a setting says otherwise."""

    owner: Name
    name: Name
    version: Sha256
    created_at: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")
    description: str
    visibility: Literal["public", "private"] = "private"
    base: str
    base_sha256: Sha256 | None = None
    palette: str = "palette.toml"
    lora: Lora | None = None
    textual_inversion: TextualInversion | None = None
    prompt: Prompt
    render: Render = Render()
    profiles: dict[Name, Profile] = {}
    folder: Path = Field(exclude=True)

    @property
    def slug(self) -> str:
        """`owner/name`, the way a model is named on the wire."""
        return f"{self.owner}/{self.name}"

    @model_validator(mode="after")
    def _check_profiles(self) -> Manifest:
        if EXACT in self.profiles:
            raise ValueError(f"the profile {EXACT} is what [render] says; give yours another name")
        for name, profile in self.profiles.items():
            self._check_scheduler(name, profile)
        return self

    def _check_scheduler(self, name: str, profile: Profile) -> None:
        if profile.scheduler is None:
            return
        if profile.lora is None:
            raise ValueError(f"the profile {name} has a scheduler, which only one with a lora may have")
        for field in TRAINED_FIELDS:
            if getattr(profile.scheduler, field) != getattr(self.render.scheduler, field):
                raise ValueError(
                    f"profile {name}: scheduler.{field} is a matter of the base; it must be as in [render.scheduler]"
                )

    def plain_spec(self, prompt: str, seed: int) -> RenderSpec:
        """Return the model's own way to draw a full prompt from its words alone, as PNG."""
        return RenderSpec(
            prompt=prompt,
            negative_prompt=self.prompt.negative_prompt,
            seed=seed,
            num_inference_steps=self.render.num_inference_steps,
            guidance_scale=self.render.guidance_scale,
            width_px=self.render.width_px,
            height_px=self.render.height_px,
            output_format="png",
            output_quality=95,
            granule_px=self.render.granule_px,
        )

    def profile(self, name: str) -> Profile:
        """Return a profile by its name; `exact` is the model's own way. Raises KeyError."""
        return Profile() if name == EXACT else self.profiles[name]

    def in_profile(self, spec: RenderSpec, name: str) -> RenderSpec:
        """Return how the same order is drawn in a profile. Raises KeyError."""
        profile = self.profile(name)
        return replace(
            spec,
            num_inference_steps=profile.num_inference_steps or spec.num_inference_steps,
            guidance_scale=spec.guidance_scale if profile.guidance_scale is None else profile.guidance_scale,
            guidance_end=profile.guidance_end,
            distilled=name if profile.lora else "",
        )

    @property
    def distilled(self) -> dict[str, Profile]:
        """The profiles that have a LoRA of their own."""
        return {name: profile for name, profile in self.profiles.items() if profile.lora}

    @property
    def has_unguided_steps(self) -> bool:
        """Whether a profile without a LoRA of its own has the model's UNet draw steps without guidance."""
        shared = [profile for profile in self.profiles.values() if not profile.lora]
        # The libraries guide by more than 1 only.
        return any(one.guidance_end < 1 or (one.guidance_scale is not None and one.guidance_scale <= 1) for one in shared)

    @property
    def files(self) -> tuple[Lora | TextualInversion, ...]:
        """Every file that the manifest names beside the base."""
        parts = (self.lora, self.textual_inversion, *(profile.lora for profile in self.profiles.values()))
        return tuple(part for part in parts if part is not None)

    @property
    def hub_id(self) -> str | None:
        """The model hub's id of the base when the manifest names one (`hub:owner/name`), else None."""
        return self.base.removeprefix(HUB_PREFIX) if self.base.startswith(HUB_PREFIX) else None

    @cached_property
    def colors(self) -> Palette:
        """The palette that orders for this model are read with."""
        return load_palette(self.folder / self.palette)

    def path_of(self, file: str, weights_dir: Path | None = None) -> Path:
        """Find a file or folder of weights: absolute as it is, else under `weights_dir`, else beside the manifest."""
        return (weights_dir or self.folder) / file


def load_manifest(path: Path) -> Manifest:
    """Read one manifest.

    Raises:
        ManifestInvalid: the file is unreadable, not TOML, or a key is missing, unknown or out of bounds.
        PaletteInvalid: its palette cannot be read.
    """
    try:
        manifest = Manifest(folder=path.parent, **tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ManifestInvalid(f"{path}: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ManifestInvalid(f"{path}: {problems}") from error
    _ = manifest.colors
    return manifest


@dataclass(frozen=True)
class Catalog:
    """All models this installation knows, and the version ids that stand for others."""

    models: tuple[Manifest, ...]
    version_aliases: dict[str, str]

    def by_slug(self, slug: str) -> Manifest:
        """Return the model called `owner/name`. Raises ModelUnknown."""
        for manifest in self.models:
            if manifest.slug == slug:
                return manifest
        known = ", ".join(manifest.slug for manifest in self.models)
        raise ModelUnknown(f"no model {slug!r} here; there is {known}", field="model")

    def by_version(self, reference: str) -> Manifest:
        """Resolve any of the three spellings: a version id, `owner/name:id`, or `owner/name`. Raises ModelUnknown."""
        slug, _, version = reference.rpartition(":")
        if not slug and "/" in version:
            return self.by_slug(version)
        if version in self.version_aliases:
            return self.by_slug(self.version_aliases[version])
        for manifest in self.models:
            if manifest.version == version and slug in ("", manifest.slug):
                return manifest
        raise ModelUnknown(f"no version {reference!r} here", field="version")


def load_catalog(models_dir: Path, version_aliases: Iterable[str] = ()) -> Catalog:
    """Read every `*.toml` manifest of a folder (the palette file beside them is left out).

    `version_aliases` are `version=owner/name` entries.

    Raises:
        ManifestInvalid: a manifest or alias is wrong, two share a name or version, or there is none.
    """
    palettes = {path.name for path in models_dir.glob("palette*.toml")}
    models = tuple(load_manifest(path) for path in sorted(models_dir.glob("*.toml")) if path.name not in palettes)
    if not models:
        raise ManifestInvalid(f"{models_dir} holds no model manifest")
    for keys in ([m.slug for m in models], [m.version for m in models]):
        if len(set(keys)) != len(keys):
            raise ManifestInvalid(f"{models_dir}: two manifests share a name or a version: {', '.join(keys)}")
    aliases = dict(_parse_alias(entry, {m.slug for m in models}) for entry in version_aliases)
    return Catalog(models, aliases)


def _parse_alias(entry: str, slugs: set[str]) -> tuple[str, str]:
    version, separator, slug = entry.partition("=")
    if not separator or slug not in slugs:
        raise ManifestInvalid(f"version alias {entry!r} must be version=owner/name with one of {', '.join(sorted(slugs))}")
    return version, slug
