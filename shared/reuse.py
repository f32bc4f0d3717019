"""Which orders a stored picture answers: those of the same render, for as long as the same weights draw it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from shared.jobs import JobSpec


def render_key(spec: JobSpec) -> str:
    """Return what two orders share that ask for the very same picture: a digest of the model version and the render."""
    render = asdict(spec.render)
    # Left out where it says nothing, so that pictures from before there was such a field still answer orders.
    if not render["distilled"]:
        del render["distilled"]
    return _digest([spec.model, spec.version, render])


def weights_digest(provenance: Mapping[str, Any]) -> str:
    """Return one digest of what a `provenance` says of weights and batch: files, strengths, schedulers, profiles, rows.

    Device and libraries are left out: they move a pixel by a shade, other weights draw another picture. A batch of more than
    one does no more than that either; but a model's workers draw both ways, and the same order is to get the same bytes.
    """
    named = [provenance.get(name) for name in ("sha256", "lora_strength", "scheduler")]
    # What most models do not have is left out, so that their digests stay what they always were.
    beyond = {"distilled": provenance.get("distilled"), "batch_size": provenance.get("batch_size", 1)}
    beyond = {name: value for name, value in beyond.items() if value not in (None, 1)}
    return _digest([*named, beyond] if beyond else named)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
