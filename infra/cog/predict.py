"""The model as a Cog predictor: the inputs of the service that Granule replaces, over the same pipeline and prompts.

A model whose manifest says so is guided by a painted tile, as in the API; what else that offers is not here.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Optional

from cog import BasePredictor, Input, Path

from shared.jobs import new_seed
from shared.manifest import load_catalog
from shared.prompts import parse_negative_prompt, parse_prompt
from shared.settings import load_settings
from worker.images import encode
from worker.pipeline import load_pipeline


class Predictor(BasePredictor):  # type: ignore[misc]  # cog is installed where it is used
    """One warm pipeline of the model that GRANULE_MODEL names."""

    def setup(self) -> None:
        """Load the model, and draw once. Raises WeightsInvalid when a file is refused or did not load in full."""
        settings = load_settings()
        self._manifest = load_catalog(settings.models_dir).by_slug(settings.model)
        self._policy = settings.prompt_policy
        self._pipeline = load_pipeline(self._manifest, settings)

    # Cog reads the annotations as it runs, and knows Optional better than "| None".
    def predict(
        self,
        prompt: str = Input(description="The colours and their shares in percent, such as 50% red, 30% black, 20% pearl"),
        negative_prompt: Optional[str] = Input(default=None, description="What to keep out; unset: the model's own"),  # noqa: UP045
        seed: Optional[int] = Input(default=None, ge=0, le=2**32 - 1, description="Unset: one is drawn"),  # noqa: UP045
    ) -> Path:
        """Draw one tile and return the file. Raises PromptInvalid when the mix cannot be drawn."""
        parsed = parse_prompt(prompt, self._manifest, self._policy)
        negative = self._manifest.prompt.negative_prompt
        if negative_prompt is not None:
            negative = parse_negative_prompt(negative_prompt, self._manifest)
        plain = self._manifest.plain_spec(parsed.prompt, new_seed() if seed is None else seed)
        spec = replace(plain, negative_prompt=negative)
        if self._manifest.render.guidance_mode == "guided" and parsed.mix and parsed.mix.painted:
            spec = replace(spec, strength=self._manifest.render.strength, painted=parsed.mix.painted)
        rendered = self._pipeline.render(spec, lambda step, steps: None)
        parameters = {"model": self._manifest.slug, "version": self._manifest.version, "prompt": spec.prompt, "seed": spec.seed}
        encoded = encode(
            rendered.pixels, output_format=spec.output_format, output_quality=spec.output_quality, parameters=parameters
        )
        file = Path(tempfile.mkdtemp()) / f"tile_seed{spec.seed}.{encoded.extension}"
        file.write_bytes(encoded.data)
        return Path(file)
