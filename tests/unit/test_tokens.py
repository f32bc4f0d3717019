from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from shared.tokens import TOKENIZER_DIR, count_tokens

LEARNED = ("<s0>", "<s1>")
PRODUCT = "ohwx_rubber_tile <s0><s1>, 50% red, 30% black, 20% pearl, photorealistic rubber tile, high quality, detailed texture"


@pytest.fixture(scope="module")
def clip() -> CLIPTokenizer:
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER_DIR, local_files_only=True)
    tokenizer.add_tokens(list(LEARNED))
    return tokenizer


def test_product_prompt_takes_35_positions() -> None:
    assert count_tokens(PRODUCT, LEARNED) == 35
    assert count_tokens(PRODUCT + ", professional photography, sharp focus", LEARNED) == 41


def test_learned_tokens_count_as_one_each() -> None:
    assert count_tokens("<s0><s1>", LEARNED) == 4
    assert count_tokens("<s0><s1>") > 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        PRODUCT,
        PRODUCT.upper(),
        "<S0> <s1><s0>x<s1>",
        "12,5% красный; 87.5% Тёмно-синий",
        "it's we'll they'd",
        "a\u00a0b\u3000c\n\td",
        "🟥⬛️ 50% ½ ﬁ e\u0301",
        "before <|endoftext|> after <|startoftext|>",
        "x" * 500,
    ],
)
def test_counts_like_the_tokenizer_of_the_pipeline(clip: CLIPTokenizer, text: str) -> None:
    assert count_tokens(text, LEARNED) == len(clip(text).input_ids)


@given(text=st.text(max_size=60))
def test_counts_any_text_like_the_tokenizer_of_the_pipeline(clip: CLIPTokenizer, text: str) -> None:
    assert count_tokens(text, LEARNED) == len(clip(text).input_ids)
