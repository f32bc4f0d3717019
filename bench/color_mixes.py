"""How true the colours of guided and plain pictures are, and what the strength does to colours and look."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.color_studio import HELD_OUT_SEED, Mix, Studio, mix_text
from training.texture import radial_spectrum, spectrum_distance
from worker.tile_score import tile_score

STRENGTHS = (0.07, 0.14, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)


def measure_guidance(studio: Studio, count: int) -> Mapping[str, Any]:
    """Draw `count` mixes guided and plain, and return the colour errors of both."""
    guided = studio.manifest.render.strength
    mixes = studio.mixes(count)
    return {
        "count": count,
        "strength": guided,
        "guided": _draw_all(studio, mixes, guided),
        "plain": _draw_all(studio, mixes, None),
        "mixes": [mix_text(mix) for mix in mixes],
    }


def _draw_all(studio: Studio, mixes: Sequence[Mix], strength: float | None) -> Mapping[str, Any]:
    errors, shades, scores, times_s = [], [], [], []
    for number, mix in enumerate(mixes):
        started_s = time.perf_counter()
        pixels = studio.draw(mix, HELD_OUT_SEED + number, strength=strength)
        times_s.append(time.perf_counter() - started_s)
        found = studio.measure(pixels, mix)
        errors.append(found.color_error)
        shades += [part.ciede2000 for part in found.parts if part.ciede2000 is not None]
        scores.append(tile_score(pixels))
    return {
        "error_mean": round(float(np.mean(errors)), 4),
        "error_p95": round(float(np.percentile(errors, 95)), 4),
        "error_max": round(max(errors), 4),
        "ciede2000_mean": round(float(np.mean(shades)), 2),
        "tile_score_mean": round(float(np.mean(scores)), 3),
        "seconds_median": round(float(np.median(times_s)), 2),
        "errors": errors,
    }


def measure_strengths(studio: Studio, count: int) -> Mapping[str, Any]:
    """Draw `count` mixes of several colours at each strength.

    The look is how far the radial power spectrum is, in decibels, from that of the model's own pictures of the same mixes.
    """
    mixes = [mix for mix in studio.mixes(8 * count) if len(mix) > 2][:count]
    own = np.mean([radial_spectrum(studio.draw(mix, HELD_OUT_SEED + n, strength=None)) for n, mix in enumerate(mixes)], axis=0)
    rows = []
    for strength in STRENGTHS:
        pictures = [studio.draw(mix, HELD_OUT_SEED + n, strength=strength) for n, mix in enumerate(mixes)]
        errors = [studio.measure(pixels, mix).color_error for pixels, mix in zip(pictures, mixes, strict=True)]
        spectrum = np.mean([radial_spectrum(pixels) for pixels in pictures], axis=0)
        rows.append(
            {
                "strength": strength,
                "steps": max(1, round(studio.manifest.render.num_inference_steps * strength)),
                "error_mean": round(float(np.mean(errors)), 4),
                "error_max": round(max(errors), 4),
                "look_db": round(spectrum_distance(spectrum, own), 2),
                "tile_score_mean": round(float(np.mean([tile_score(pixels) for pixels in pictures])), 3),
            }
        )
    return {"count": count, "rows": rows}
