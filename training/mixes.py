"""Draws random mixes and writes them as captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from shared.palette import Color, Palette

Mix = list[tuple[Color, float]]

_COUNT_ODDS = (0.22, 0.24, 0.22, 0.20, 0.12)
_SUBJECTS = (
    "terrazzo floor",
    "polished terrazzo tile",
    "photo of a terrazzo floor",
    "terrazzo slab seen from above",
    "terrazzo",
)
_ENDINGS = (
    "",
    ", polished stone, high quality",
    ", photorealistic terrazzo, high quality, detailed texture",
    ", detailed texture",
)
PRODUCT_TRIGGER = "ohwx_rubber_tile <s0><s1>"
PRODUCT_TEMPLATE = PRODUCT_TRIGGER + ", {mix}, photorealistic rubber tile, high quality, detailed texture"


def draw_mix(rng: np.random.Generator, palette: Palette, *, most: int = 5, least_share: float = 0.02) -> Mix:
    """Return 1 to `most` different colours with shares that sum to 1, each at least `least_share`."""
    odds = np.array(_COUNT_ODDS[:most])
    count = 1 + int(rng.choice(most, p=odds / odds.sum()))
    chosen = rng.choice(len(palette.colors), count, replace=False)
    free = rng.dirichlet(np.full(count, 1.2)) * (1 - least_share * count)
    return [(palette.colors[i], least_share + float(part)) for i, part in zip(chosen, free, strict=True)]


def whole_percents(mix: Mix, step: int = 5) -> list[tuple[Color, int]]:
    """Round a mix to multiples of `step` percent that sum to 100, none of them zero (largest remainder)."""
    units = 100 // step
    exact = [max(1.0, share * units) for _, share in mix]
    scale = units / sum(exact)
    parts = [max(1, int(value * scale)) for value in exact]
    while sum(parts) != units:
        gaps = [value * scale - part for value, part in zip(exact, parts, strict=True)]
        if sum(parts) < units:
            parts[int(np.argmax(gaps))] += 1
        else:
            parts[int(np.argmin([gap if part > 1 else np.inf for gap, part in zip(gaps, parts, strict=True)]))] -= 1
    return [(color, part * step) for (color, _), part in zip(mix, parts, strict=True)]


def mix_text(mix: Sequence[tuple[Color, float]], decimals: int = 0) -> str:
    """Write shares of 0 to 1 as `50% red, 30% black`; a trailing `.0` is left out."""
    parts = []
    for color, share in mix:
        number = f"{100 * share:.{decimals}f}"
        parts.append(f"{number.removesuffix('.0')}% {color.name}")
    return ", ".join(parts)


def terrazzo_caption(mix: Sequence[tuple[Color, float]], rng: np.random.Generator, words: Sequence[str]) -> str:
    """Return a caption for a terrazzo picture: a subject, the mix in random order, an ending.

    In a third of the captions some of `words` stand around the mix, so that the encoders learn to pass over other words.
    """
    subject, ending = _SUBJECTS[rng.integers(len(_SUBJECTS))], _ENDINGS[rng.integers(len(_ENDINGS))]
    if rng.random() < 0.35:
        subject = _random_words(rng, words) if rng.random() < 0.4 else f"{subject} {_random_words(rng, words)}"
    if rng.random() < 0.35:
        ending = f"{ending}, {_random_words(rng, words)}"
    return f"{subject}, {_shuffled_text(mix, rng)}{ending}"


def product_caption(mix: Sequence[tuple[Color, float]], rng: np.random.Generator) -> str:
    """Return the product's prompt for a rubber tile, with the mix in random order."""
    return PRODUCT_TEMPLATE.format(mix=_shuffled_text(mix, rng))


def plain_words(vocabulary: Iterable[str]) -> list[str]:
    """Return the whole lower-case words of a CLIP vocabulary (entries that end in `</w>`), sorted."""
    found = (token.removesuffix("</w>") for token in vocabulary if token.endswith("</w>"))
    return sorted(word for word in found if word.isascii() and word.isalpha() and 3 <= len(word) <= 10)


def _random_words(rng: np.random.Generator, words: Sequence[str]) -> str:
    return " ".join(words[i] for i in rng.integers(len(words), size=rng.integers(1, 7)))


def _shuffled_text(mix: Sequence[tuple[Color, float]], rng: np.random.Generator) -> str:
    order = rng.permutation(len(mix))
    return mix_text([mix[i] for i in order], decimals=int(rng.random() < 0.15))
