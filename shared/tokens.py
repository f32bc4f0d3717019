"""Counts the tokens of a prompt the way CLIP does, without torch or transformers.

Both text encoders of SDXL read the same byte-pair vocabulary of 49,408 entries and look at 77 positions, the first and the
last of which are the marks of start and end. Whatever is longer would be cut off in silence by the pipeline, so the API
counts first. The vocabulary is the one shipped with the mini checkpoint; SDXL's own is the same file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

TOKENIZER_DIR = Path(__file__).resolve().parent.parent / "models" / "mini" / "tokenizer"
MAX_TOKENS = 77
START_AND_END = ("<|startoftext|>", "<|endoftext|>")

# How CLIP cuts a text before byte-pair encoding: its two marks, English contractions, words, single digits, the rest.
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def count_tokens(text: str, learned: tuple[str, ...] = ()) -> int:
    """Return how many of the 77 positions `text` takes, start and end marks included.

    `learned` are the tokens of a textual inversion, in the manifest's order; each counts as one wherever it is spelled.
    """
    return len(_tokenizer(learned).encode(text, add_special_tokens=False).ids) + len(START_AND_END)


@cache
def _tokenizer(learned: tuple[str, ...]) -> Tokenizer:
    """Build CLIP's tokenizer once for each set of learned tokens; reading the vocabulary takes 0.04 s."""
    vocabulary, merges = TOKENIZER_DIR / "vocab.json", TOKENIZER_DIR / "merges.txt"
    tokenizer = Tokenizer(BPE.from_file(str(vocabulary), str(merges), end_of_word_suffix="</w>", unk_token=START_AND_END[1]))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_tokens([AddedToken(token, normalized=True) for token in (*START_AND_END, *learned)])
    return tokenizer
