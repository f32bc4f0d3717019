"""How an order is to be drawn: what the caller left open is filled in from the model's manifest, what cannot be is refused."""

from __future__ import annotations

from dataclasses import replace

from api.params import PredictionInput
from shared.errors import InputInvalid
from shared.jobs import OutputFormat, RenderSpec
from shared.manifest import EXACT, Manifest
from shared.prompts import ParsedPrompt


def render_spec(
    wanted: PredictionInput,
    parsed: ParsedPrompt,
    manifest: Manifest,
    *,
    negative_prompt: str | None,
    seed: int,
    max_candidates: int,
) -> tuple[RenderSpec, list[str]]:
    """Return how to draw an order, and warnings about what will be otherwise than one could have thought.

    Raises:
        InputInvalid: what was asked for goes beyond the token (`max_candidates`), the model or the prompt, or contradicts
            itself; the field is named.
    """
    angles = tuple(wanted.angles)
    strength, painted, warnings = _guidance(wanted, parsed, manifest)
    if wanted.grout and not any(angles):
        warnings.append("grout lies between the tiles of a floor; it does not show from straight above (angles: [0])")
    _check_candidates(wanted.num_candidates, parsed, max_candidates)
    spec = replace(
        _in_profile(manifest.plain_spec(parsed.prompt, seed), wanted, manifest),
        negative_prompt=negative_prompt,
        output_format=file_format(wanted),
        output_quality=wanted.output_quality,
        strength=strength,
        painted=painted,
        seamless=_is_seamless(wanted.seamless, angles),
        num_candidates=wanted.num_candidates,
        angles=angles,
        grout=wanted.grout,
        legend=wanted.legend,
    )
    return spec, warnings


def file_format(wanted: PredictionInput) -> OutputFormat:
    """Return the format by its extension: jpeg is jpg."""
    return "jpg" if wanted.output_format == "jpeg" else wanted.output_format


def _in_profile(spec: RenderSpec, wanted: PredictionInput, manifest: Manifest) -> RenderSpec:
    try:
        return manifest.in_profile(spec, wanted.profile)
    except KeyError as error:
        known = ", ".join((EXACT, *manifest.profiles))
        detail = f"{manifest.slug} has no profile {wanted.profile!r}; it has {known}"
        raise InputInvalid(detail, field="input.profile") from error


def _guidance(
    wanted: PredictionInput, parsed: ParsedPrompt, manifest: Manifest
) -> tuple[float | None, tuple[tuple[str, float], ...], list[str]]:
    """Return strength and colours of the painted tile (None and nothing: draw from the words alone), and warnings."""
    render = manifest.render
    if (wanted.guidance_mode or render.guidance_mode) == "plain":
        return None, (), []
    if not render.can_be_guided:
        raise InputInvalid(f"{manifest.slug} has no guided pictures: it does not draw squares", field="input.guidance_mode")
    painted = _painted(parsed)
    if not painted:
        reason = "only a mix of palette colours can be painted"
        if wanted.guidance_mode is not None:
            raise InputInvalid(f"{reason}; draw this prompt with guidance_mode plain", field="input.guidance_mode")
        return None, (), [f"drawn from the words alone, as guidance_mode plain: {reason}"]
    return render.strength, painted, []


def _check_candidates(count: int, parsed: ParsedPrompt, allowed: int) -> None:
    field = "input.num_candidates"
    if count > allowed:
        raise InputInvalid(f"this token may have {allowed} drawn to choose from, not {count}", field=field)
    if count > 1 and not _painted(parsed):
        raise InputInvalid("the best is chosen by its colours, so the prompt must be a mix of palette colours", field=field)


def _painted(parsed: ParsedPrompt) -> tuple[tuple[str, float], ...]:
    return parsed.mix.painted if parsed.mix else ()


def _is_seamless(wanted: bool | None, angles: tuple[int, ...]) -> bool:
    if not any(angles):
        return bool(wanted)
    if wanted is False:
        raise InputInvalid("a floor at an angle is laid of seamless tiles; leave seamless out", field="input.seamless")
    return True
