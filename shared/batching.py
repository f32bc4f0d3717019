"""Which jobs may be drawn in one forward of the model."""

from __future__ import annotations

from dataclasses import fields

from shared.jobs import RenderSpec

FREE = frozenset(
    {
        "prompt",
        "negative_prompt",
        "seed",
        "painted",
        "granule_px",
        "output_format",
        "output_quality",
        "angles",
        "grout",
        "legend",
    }
)
"""The fields of a render that each row of a batch has for itself: what the model is told, and what is done with the pixels
afterwards. All others must agree; so must one that a later version adds, unless it is named here."""


def share_forward(one: RenderSpec, other: RenderSpec) -> bool:
    """Tell whether two renders may be rows of one batch. Candidates are drawn one by one, until one is good enough."""
    agree = all(getattr(one, field.name) == getattr(other, field.name) for field in fields(one) if field.name not in FREE)
    return agree and one.num_candidates == 1
