"""Teach both text encoders the tokens of a textual inversion, and prove that they learnt them.

The file holds one tensor for each encoder, a row for each token. Which tensor belongs to which encoder is told by its
width alone: names differ between trainers (clip_l and clip_g, text_encoders_0 and text_encoders_1) and have been swapped
in the wild, widths cannot be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from transformers import CLIPTokenizer, PreTrainedModel

from shared.errors import WeightsInvalid
from worker.weights import read_tensors

# A probe in which every token stands between ordinary words, as it does in a prompt.
_PROBE = "a {} tile"


@dataclass(frozen=True)
class Encoder:
    """One of the two text encoders with its tokenizer; `name` is the pipeline's name of the encoder."""

    name: str
    tokenizer: CLIPTokenizer
    model: PreTrainedModel

    @property
    def table(self) -> torch.Tensor:
        """The token table, (tokens, width)."""
        return self.model.get_input_embeddings().get_parameter("weight")


def encoders_of(pipeline: StableDiffusionXLPipeline) -> tuple[Encoder, Encoder]:
    """Return the pipeline's two text encoders, each with its own tokenizer."""
    return (
        Encoder("text_encoder", pipeline.tokenizer, pipeline.text_encoder),
        Encoder("text_encoder_2", pipeline.tokenizer_2, pipeline.text_encoder_2),
    )


def load_embeddings(pipeline: StableDiffusionXLPipeline, path: Path, tokens: Sequence[str]) -> None:
    """Add `tokens` to both tokenizers and their rows to both encoders, which must be float32.

    Raises:
        WeightsInvalid: the file does not hold exactly one (len(tokens), width) tensor for each encoder, a token is known
            already, or a row did not arrive as it is in the file. The pipeline is then not fit for use.
    """
    encoders = encoders_of(pipeline)
    rows = match_rows(path, read_tensors(path), tokens, encoders)
    check_unknown(path, tokens, encoders)
    for encoder in encoders:
        try:
            pipeline.load_textual_inversion(
                list(rows[encoder.name].float()),
                token=list(tokens),
                tokenizer=encoder.tokenizer,
                text_encoder=encoder.model,
            )
        except ValueError as error:
            raise WeightsInvalid(f"{path}: {encoder.name} refused it: {error}") from error
    check_rows(path, rows, tokens, encoders)


def check_unknown(path: Path, tokens: Sequence[str], encoders: Sequence[Encoder]) -> None:
    """Refuse tokens that a tokenizer has already. Raises WeightsInvalid."""
    for encoder in encoders:
        known = sorted(set(tokens) & encoder.tokenizer.get_vocab().keys())
        if known:
            raise WeightsInvalid(
                f"{path}: {encoder.name} knows {', '.join(known)} already; load the file once, or name other tokens"
            )


def match_rows(
    path: Path, tensors: Mapping[str, torch.Tensor], tokens: Sequence[str], encoders: Sequence[Encoder]
) -> dict[str, torch.Tensor]:
    """Find the tensor of each encoder by its width and return them by the encoder's name.

    Raises:
        WeightsInvalid: the encoders have the same width, a tensor is not a table or fits none, an encoder has none or
            two, or the number of rows is not that of the tokens.
    """
    widths = {int(encoder.table.shape[1]): encoder.name for encoder in encoders}
    if len(widths) != len(encoders):
        raise WeightsInvalid(f"{path}: both text encoders are {next(iter(widths))} wide, so rows cannot be told apart by width")
    expected = " and ".join(f"({len(tokens)}, {width}) for {name}" for width, name in widths.items())
    rows: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        shape = tuple(tensor.shape)
        name = widths.get(shape[1]) if len(shape) == 2 else None
        if name is None:
            raise WeightsInvalid(f"{path}: {key} of shape {shape} fits no text encoder; expected {expected}")
        if name in rows:
            raise WeightsInvalid(f"{path}: two tensors are as wide as {name}; expected {expected}")
        if shape[0] != len(tokens):
            raise WeightsInvalid(
                f"{path}: {key} has {shape[0]} rows for {len(tokens)} tokens ({', '.join(tokens)}); "
                "correct the tokens in the manifest, or fetch the file again"
            )
        rows[name] = tensor
    missing = [encoder.name for encoder in encoders if encoder.name not in rows]
    if missing:
        raise WeightsInvalid(f"{path}: it has no tensor for {missing[0]}; expected {expected}")
    return rows


def check_rows(path: Path, rows: Mapping[str, torch.Tensor], tokens: Sequence[str], encoders: Sequence[Encoder]) -> None:
    """Check that each tokenizer reads each token as one id, and that this id's row is the file's row.

    Raises:
        WeightsInvalid: names the encoder and the token.
    """
    for encoder in encoders:
        plain = encoder.tokenizer(_PROBE.format(""), add_special_tokens=False).input_ids
        for row, token in zip(rows[encoder.name], tokens, strict=True):
            id_ = encoder.tokenizer.convert_tokens_to_ids(token)
            read = encoder.tokenizer(_PROBE.format(token), add_special_tokens=False).input_ids
            if sorted(read) != sorted([*plain, id_]):
                raise WeightsInvalid(f"{path}: the tokenizer of {encoder.name} does not read {token} as one token")
            if not torch.equal(encoder.table[id_].cpu(), row.float()):
                raise WeightsInvalid(f"{path}: the row of {token} in {encoder.name} differs from the file after loading")
