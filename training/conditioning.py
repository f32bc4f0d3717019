"""The two text encoders with their tokenizers, used as SDXL's pipeline uses them, and stage 0: they learn to read a mix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from shared.palette import Palette
from training.architecture import TOKENIZERS, build_text_encoder, build_text_encoder_2
from training.mixes import Mix, draw_mix, plain_words, terrazzo_caption
from training.progress import Progress, learning_rate, set_learning_rate

STAGE = "text"
BATCH = 128
OWN_SHARE_WEIGHT = 15.0


@dataclass(frozen=True, slots=True)
class TextEncoders:
    """Encoder 1 and 2 with the tokenizer of each (they differ in the padding token)."""

    tokenizer: CLIPTokenizer
    tokenizer_2: CLIPTokenizer
    encoder: CLIPTextModel
    encoder_2: CLIPTextModelWithProjection

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of both encoders."""
        yield from self.encoder.parameters()
        yield from self.encoder_2.parameters()

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return the weights of both encoders."""
        return {"encoder": self.encoder.state_dict(), "encoder_2": self.encoder_2.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Take weights that `state_dict` returned."""
        self.encoder.load_state_dict(state["encoder"])
        self.encoder_2.load_state_dict(state["encoder_2"])

    def encode(self, texts: Sequence[str], length: int = 77) -> tuple[Tensor, Tensor]:
        """Return SDXL's conditioning: hidden states [n, length, 96] before the last layers, and the pooled embedding [n, 64].

        A `length` below 77 leaves out padding only to save time: attention is causal, so the other states stay the same.
        """
        ids, ids_2 = (token_ids(tokenizer, texts)[:, :length] for tokenizer in (self.tokenizer, self.tokenizer_2))
        states = self.encoder(ids, output_hidden_states=True).hidden_states[-2]
        second = self.encoder_2(ids_2, output_hidden_states=True)
        return torch.cat([states, second.hidden_states[-2]], dim=-1), second.text_embeds

    def ends(self, texts: Sequence[str]) -> list[int]:
        """Return the position of every text's end token, the one that is pooled at."""
        return [len(ids) - 1 for ids in self.tokenizer_2(list(texts), truncation=True).input_ids]


def token_ids(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Return token ids [n, 77], cut and padded as the pipeline does."""
    encoded = tokenizer(list(texts), padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    ids: Tensor = encoded.input_ids
    return ids


def build_text_encoders(start: Path | None = None) -> TextEncoders:
    """Return encoders with the real tokenizers: untrained, or with the weights of the exported checkpoint in `start`."""
    encoder, encoder_2 = build_text_encoder(), build_text_encoder_2()
    if start is not None:
        encoder.load_state_dict(CLIPTextModel.from_pretrained(start / "text_encoder", local_files_only=True).state_dict())
        second = CLIPTextModelWithProjection.from_pretrained(start / "text_encoder_2", local_files_only=True)
        encoder_2.load_state_dict(second.state_dict())
    for module in (encoder, encoder_2):
        module.set_attn_implementation("eager")  # for sequences this short, quicker backwards than the fused kernel on a CPU
    return TextEncoders(
        CLIPTokenizer.from_pretrained(TOKENIZERS / "tokenizer", local_files_only=True),
        CLIPTokenizer.from_pretrained(TOKENIZERS / "tokenizer_2", local_files_only=True),
        encoder,
        encoder_2,
    )


def share_vectors(mixes: Sequence[Mix], palette: Palette) -> Tensor:
    """Return the mixes as [n, number of colours], rows that sum to 1."""
    index = {color.code: i for i, color in enumerate(palette.colors)}
    vectors = torch.zeros(len(mixes), len(palette.colors))
    for row, mix in zip(vectors, mixes, strict=True):
        for color, share in mix:
            row[index[color.code]] = share
    return vectors


def color_positions(tokenizer: CLIPTokenizer, captions: Sequence[str], mixes: Sequence[Mix]) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for every colour of every caption, its row, the position of its last token, and its share."""
    rows, positions, shares = [], [], []
    for row, (caption, mix) in enumerate(zip(captions, mixes, strict=True)):
        encoded = tokenizer(caption, truncation=True)
        for color, share in mix:
            phrase = f"% {color.name}"
            last_letter = f"{caption},".index(f"{phrase},") + len(phrase) - 1
            if (token := encoded.char_to_token(last_letter)) is not None:
                rows.append(row)
                positions.append(token)
                shares.append(share)
    return torch.tensor(rows), torch.tensor(positions), torch.tensor(shares)


def train_text_encoders(
    progress: Progress, palette: Palette, *, steps: int, seed: int, start: Path | None = None
) -> TextEncoders:
    """Stage 0: both encoders learn to state the mix, before any picture is drawn.

    Linear heads on the last token, on the padding and on the pooled embedding guess the whole mix; another one on each
    colour's own token guesses that colour's share, which is what ties numbers to words.
    """
    torch.manual_seed(seed)
    texts = build_text_encoders(start)
    words = plain_words(texts.tokenizer.get_vocab())
    heads = nn.ModuleList([nn.Linear(96, len(palette.colors)), nn.Linear(64, len(palette.colors)), nn.Linear(96, 1)])
    optimizer = torch.optim.AdamW([*texts.parameters(), *heads.parameters()], weight_decay=0.0, betas=(0.9, 0.98), fused=True)
    done = 0
    if (state := progress.load(STAGE)) is not None:
        texts.load_state_dict(state["texts"])
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    rng = np.random.default_rng((seed, done))
    rows = torch.arange(BATCH)
    for step in range(done, steps):
        set_learning_rate(optimizer, learning_rate(step, steps, peak=1.5e-3))
        mixes = [draw_mix(rng, palette) for _ in range(BATCH)]
        captions = [terrazzo_caption(mix, rng, words) for mix in mixes]
        wanted = share_vectors(mixes, palette)
        ends = texts.ends(captions)
        hidden, pooled = texts.encode(captions, length=min(77, max(ends) + 3))
        guesses = heads[0](hidden[rows, ends]), heads[0](hidden[:, -1]), heads[1](pooled)
        owners, positions, shares = color_positions(texts.tokenizer, captions, mixes)
        own = heads[2](hidden[owners, positions]).squeeze(-1)
        loss = torch.stack([functional.cross_entropy(guess, wanted) for guess in guesses]).mean()
        loss = loss + OWN_SHARE_WEIGHT * functional.mse_loss(own, shares)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(texts.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            errors = [0.5 * (guess.softmax(-1) - wanted).abs().sum(-1).mean().item() for guess in guesses]
            progress.log(STAGE, step + 1, loss=loss.item(), tv_end=errors[0], tv_padding=errors[1], tv_pooled=errors[2])
            progress.log(STAGE, step + 1, own_error=(own - shares).abs().mean().item())
        if (step + 1) % 250 == 0 or step + 1 == steps:
            held = {"texts": texts.state_dict(), "heads": heads.state_dict(), "optimizer": optimizer.state_dict()}
            progress.save(STAGE, {**held, "step": step + 1})
    return texts
