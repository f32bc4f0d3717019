"""What a render must be like so that the libraries can draw it."""

from __future__ import annotations

import math

from shared.errors import InputInvalid
from shared.jobs import RenderSpec

SIZE_STEP_PX = 8
SEED_LIMIT = 2**32


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
