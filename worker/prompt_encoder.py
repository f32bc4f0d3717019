"""Turn a prompt into what the UNet reads, and remember the last few.

A shop orders the same mixes again and again, and the negative prompt hardly ever changes. Each text is encoded alone, so
that its numbers do not depend on what it is encoded with; a remembered encoding is the very tensor of the first time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import StableDiffusionXLPipeline

from shared.errors import PromptInvalid

# One entry of full-size SDXL takes 318 KB in half precision.
CACHE_ENTRIES = 64


@dataclass(frozen=True, eq=False)
class Encoding:
    """Rows of texts: `embeds` (rows, tokens, width of both encoders), `pooled` (rows, projection of encoder 2)."""

    embeds: torch.Tensor
    pooled: torch.Tensor


def join_encodings(encodings: Sequence[Encoding]) -> Encoding:
    """Put the rows of encodings below each other."""
    return Encoding(torch.cat([one.embeds for one in encodings]), torch.cat([one.pooled for one in encodings]))


class PromptEncoder:
    """Encodes texts with a pipeline's text encoders and keeps the `entries` used last."""

    def __init__(self, pipeline: StableDiffusionXLPipeline, *, entries: int = CACHE_ENTRIES) -> None:
        self._pipeline = pipeline
        self._entries = entries
        self._cache: OrderedDict[str, Encoding] = OrderedDict()

    def encode(self, text: str, *, field: str = "prompt") -> Encoding:
        """Return the encoding of a text, from memory where it is known.

        Raises:
            PromptInvalid: the text is longer than the encoders read; `field` is named as the input at fault.
        """
        if text in self._cache:
            self._cache.move_to_end(text)
            return self._cache[text]
        self._check_length(text, field)
        with torch.no_grad():
            embeds, _, pooled, _ = self._pipeline.encode_prompt(prompt=text, do_classifier_free_guidance=False)
        encoding = Encoding(embeds, pooled)
        self._cache[text] = encoding
        if len(self._cache) > self._entries:
            self._cache.popitem(last=False)
        return encoding

    def encode_negative(self, text: str | None) -> Encoding:
        """Return the encoding of a negative prompt; None is not the empty text but zeros, as SDXL was trained.

        Raises:
            PromptInvalid: as `encode`.
        """
        if text is None and self._pipeline.config.force_zeros_for_empty_prompt:
            empty = self.encode("")
            return Encoding(torch.zeros_like(empty.embeds), torch.zeros_like(empty.pooled))
        return self.encode(text or "", field="negative_prompt")

    def _check_length(self, text: str, field: str) -> None:
        for tokenizer in (self._pipeline.tokenizer, self._pipeline.tokenizer_2):
            length = len(tokenizer(text).input_ids)
            if length > tokenizer.model_max_length:
                raise PromptInvalid(
                    f"the text has {length} tokens, the model reads {tokenizer.model_max_length}; make it shorter", field=field
                )
