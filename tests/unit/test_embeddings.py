import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.errors import WeightsInvalid
from training.architecture import EMBEDDINGS_FILE
from worker.embeddings import check_rows, encoders_of, load_embeddings, match_rows

TOKENS = ("<s0>", "<s1>")
WIDTHS = (32, 64)
PROMPT = "ohwx_rubber_tile <s0><s1>, 50% red, 50% black"


@pytest.fixture
def pipeline(base_pipeline: Any) -> Any:
    base_pipeline.tokenizer = copy.deepcopy(base_pipeline.tokenizer)
    base_pipeline.tokenizer_2 = copy.deepcopy(base_pipeline.tokenizer_2)
    return base_pipeline


def make_rows(count: int = 2, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    first, second = (torch.randn((count, width), generator=generator).to(dtype) for width in WIDTHS)
    return first, second


def match(pipeline: Any, tensors: dict[str, torch.Tensor], tokens: tuple[str, ...] = TOKENS) -> dict[str, torch.Tensor]:
    return match_rows(Path("ti.safetensors"), tensors, tokens, encoders_of(pipeline))


@pytest.mark.parametrize(
    "keys",
    [
        ("clip_l", "clip_g"),
        ("clip_g", "clip_l"),
        ("text_encoders_0", "text_encoders_1"),
        ("text_encoders_1", "text_encoders_0"),
    ],
)
def test_rows_go_to_the_encoder_of_their_width_whatever_their_name(
    pipeline: Any, tmp_path: Path, keys: tuple[str, str]
) -> None:
    rows = make_rows()
    path = tmp_path / "ti.safetensors"
    save_file(dict(zip(keys, rows, strict=True)), path)
    before = [encoder.table.clone() for encoder in encoders_of(pipeline)]
    load_embeddings(pipeline, path, TOKENS)
    for encoder, old, row in zip(encoders_of(pipeline), before, rows, strict=True):
        assert torch.equal(encoder.table[: len(old)], old)
        assert torch.equal(encoder.table[len(old) :], row)


def test_a_prompt_reaches_both_rows_in_both_encoders_of_mini(pipeline: Any, checkpoint_dir: Path) -> None:
    path = checkpoint_dir / EMBEDDINGS_FILE
    load_embeddings(pipeline, path, TOKENS)
    rows = match(pipeline, load_file(path))
    for encoder in encoders_of(pipeline):
        ids = encoder.tokenizer(PROMPT).input_ids
        places = [ids.index(encoder.tokenizer.convert_tokens_to_ids(token)) for token in TOKENS]
        assert places[1] == places[0] + 1
        assert torch.equal(encoder.table[[ids[place] for place in places]], rows[encoder.name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rows_are_widened_exactly(pipeline: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    rows = make_rows(dtype=dtype)
    save_file({"clip_l": rows[0], "clip_g": rows[1]}, tmp_path / "ti.safetensors")
    load_embeddings(pipeline, tmp_path / "ti.safetensors", TOKENS)
    for encoder, row in zip(encoders_of(pipeline), rows, strict=True):
        assert torch.equal(encoder.table[-2:], row.float())


L, G = make_rows()


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"clip_l": L}, "no tensor for text_encoder_2"),
        ({"clip_g": G}, "no tensor for text_encoder; expected"),
        ({"clip_l": L, "clip_g": torch.ones(2, 1280)}, r"clip_g of shape \(2, 1280\) fits no text encoder; expected \(2, 32\)"),
        ({"clip_l": L, "other": L, "clip_g": G}, "two tensors are as wide as text_encoder"),
        ({"clip_l": L[0], "clip_g": G}, r"clip_l of shape \(32,\) fits no"),
        ({"clip_l": L[None], "clip_g": G}, r"clip_l of shape \(1, 2, 32\) fits no"),
        ({"clip_l": L[:1], "clip_g": G}, "clip_l has 1 rows for 2 tokens"),
        ({"clip_l": torch.ones(3, 32), "clip_g": torch.ones(3, 64)}, "has 3 rows for 2 tokens"),
        ({"lora_unet_mid.lora_down.weight": torch.ones(4, 80)}, "fits no text encoder"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_expected(
    pristine_pipeline: Any, tensors: dict[str, torch.Tensor], says: str
) -> None:
    with pytest.raises(WeightsInvalid, match=says) as caught:
        match(pristine_pipeline, tensors)
    assert "ti.safetensors" in caught.value.detail


def test_encoders_of_one_width_are_refused_rather_than_guessed(pristine_pipeline: Any) -> None:
    first, _ = encoders_of(pristine_pipeline)
    with pytest.raises(WeightsInvalid, match="both text encoders are 32 wide"):
        match_rows(Path("ti.safetensors"), {"clip_l": L}, TOKENS, (first, first))


def test_loading_twice_is_refused_before_anything_changes(pipeline: Any, checkpoint_dir: Path) -> None:
    load_embeddings(pipeline, checkpoint_dir / EMBEDDINGS_FILE, TOKENS)
    sizes = [encoder.table.shape for encoder in encoders_of(pipeline)]
    with pytest.raises(WeightsInvalid, match="text_encoder knows <s0>, <s1> already"):
        load_embeddings(pipeline, checkpoint_dir / EMBEDDINGS_FILE, TOKENS)
    assert [encoder.table.shape for encoder in encoders_of(pipeline)] == sizes


def test_a_token_that_is_an_ordinary_word_is_refused(pipeline: Any, checkpoint_dir: Path) -> None:
    with pytest.raises(WeightsInvalid, match="knows tile</w> already"):
        load_embeddings(pipeline, checkpoint_dir / EMBEDDINGS_FILE, ("<s0>", "tile</w>"))


def test_the_check_sees_a_token_that_only_one_encoder_learnt(pipeline: Any, checkpoint_dir: Path) -> None:
    path = checkpoint_dir / EMBEDDINGS_FILE
    rows = match(pipeline, load_file(path))
    pipeline.load_textual_inversion(
        list(rows["text_encoder"]), token=list(TOKENS), tokenizer=pipeline.tokenizer, text_encoder=pipeline.text_encoder
    )
    with pytest.raises(WeightsInvalid, match="tokenizer of text_encoder_2 does not read <s0> as one token"):
        check_rows(path, rows, TOKENS, encoders_of(pipeline))


def test_the_check_sees_one_changed_bit(pipeline: Any, checkpoint_dir: Path) -> None:
    path = checkpoint_dir / EMBEDDINGS_FILE
    rows = match(pipeline, load_file(path))
    load_embeddings(pipeline, path, TOKENS)
    table = encoders_of(pipeline)[1].table
    with torch.no_grad():
        table[-1, 5] = torch.nextafter(table[-1, 5], torch.tensor(9.0))
    with pytest.raises(WeightsInvalid, match="row of <s1> in text_encoder_2 differs"):
        check_rows(path, rows, TOKENS, encoders_of(pipeline))


def test_rows_that_are_not_finite_are_refused(pipeline: Any, tmp_path: Path) -> None:
    broken = G.clone()
    broken[1, 7] = float("nan")
    save_file({"clip_l": L, "clip_g": broken}, tmp_path / "ti.safetensors")
    with pytest.raises(WeightsInvalid, match="tensor clip_g holds NaN"):
        load_embeddings(pipeline, tmp_path / "ti.safetensors", TOKENS)
