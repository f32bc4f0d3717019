from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import PromptInvalid
from shared.mix import Mix, Part, check_mix, format_share, parse_part, split_parts
from shared.palette import Color, load_palette

PALETTE = load_palette()


def parse(text: str) -> Mix:
    parts = [parse_part(piece, PALETTE) for piece in split_parts(text)]
    assert None not in parts
    return check_mix([part for part in parts if part is not None])


@st.composite
def mixes(draw: st.DrawFn) -> Mix:
    """Any valid mix: 1 to 6 palette colours with shares in hundredths of a percent that sum to 100."""
    colors: list[Color] = draw(st.lists(st.sampled_from(PALETTE.colors), min_size=1, max_size=6, unique=True))
    inner = draw(st.lists(st.integers(1, 9_999), min_size=len(colors) - 1, max_size=len(colors) - 1, unique=True))
    edges = [0, *sorted(inner), 10_000]
    shares = [(right - left) / 100 for left, right in zip(edges, edges[1:], strict=False)]
    return Mix(tuple(Part(color, color.name, share) for color, share in zip(colors, shares, strict=True)))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("50% red, 30% black, 20% pearl", "50% red, 30% black, 20% pearl"),
        ("20 % PEARL ,30%black,  50.0% Red,", "20% pearl, 30% black, 50% red"),
        ("50% DKGREEN, 50% dark-blue", "50% dark green, 50% dark blue"),
        ("50% красного, 50% чёрный", "50% red, 50% black"),
        ("12,5% red,87,5% blue", "12.5% red, 87.5% blue"),
        ("12,50 % red; 87.5% blue", "12.5% red, 87.5% blue"),
        ("+33.333333% red, 33.333333% blue, 33.333334% white", "33.33% red, 33.33% blue, 33.33% white"),
        ("1% red, 99% white", "1% red, 99% white"),
        ("0.5% red, 99.5% white", "0.5% red, 99.5% white"),
        ("100% white-green", "100% white-green"),
        ("50% navy, 50% RAL 3000", "50% navy, 50% RAL 3000"),
    ],
)
def test_reads_every_way_of_writing_a_mix(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("50% red, 30% black", "80% and must sum to 100%: 20% is missing"),
        ("60% red, 60% black", "120% and must sum to 100%: 20% is too much"),
        ("50.6% red, 50% black", "sum to 100.6%"),
        ("50% red, 30% black, 20% RED", "'red' stands in the mix twice, as '50% red' and '20% red'"),
        ("50% navy, 50% Navy", "stands in the mix twice"),
        ("0% red, 100% black", "'0% red': a share is at least 0.01%"),
        ("0.001% red, 100% black", "'0.001% red': a share is at least"),
        ("-5% red, 105% black", "'-5% red': a share is at least"),
        ("\u22125% red, 105% black", "5% red': a share is at least"),
        ("150% red", "'150% red': a share is at most 100%"),
        ("9" * 400 + "% red", "a share is at most 100%"),
        ("50% red, 50%", "'50%' names no colour"),
        ("50% -, 50% red", "names no colour"),
        ("50% red 50% black", "write a comma between the parts"),
    ],
)
def test_refuses_what_cannot_be_right_and_names_it(text: str, named: str) -> None:
    with pytest.raises(PromptInvalid) as caught:
        parse(text)
    assert named in caught.value.detail
    assert caught.value.field == "prompt"
    assert len(caught.value.detail) < 400


@pytest.mark.parametrize(
    ("shares", "accepted"), [((99.5,), True), ((99.49,), False), ((50.25, 50.25), True), ((50.26, 50.25), False)]
)
def test_tolerates_a_sum_within_half_a_percent(shares: tuple[float, ...], accepted: bool) -> None:
    parts = [Part(color, color.name, share) for color, share in zip(PALETTE.colors, shares, strict=False)]
    if accepted:
        assert [part.share for part in check_mix(parts).parts] == list(shares)
    else:
        with pytest.raises(PromptInvalid):
            check_mix(parts)


@pytest.mark.parametrize("text", ["red", "red 50%", "a 50% red", "50 red", "%", "", "½% red"])
def test_text_without_a_leading_share_is_no_part(text: str) -> None:
    assert parse_part(text, PALETTE) is None


def test_parts_without_a_colour_are_not_among_the_ordered() -> None:
    assert [(color.code, share) for color, share in parse("50% navy, 50% red").ordered] == [("RED", 50.0)]


def test_a_mix_is_painted_whole_or_not_at_all() -> None:
    red, black = (PALETTE.find(name) for name in ("red", "black"))
    assert red and black
    assert parse("60% black, 40% red").painted == ((black.hex, 60.0), (red.hex, 40.0))
    assert parse("50% navy, 50% red").painted == ()


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("50% ral 3000,50% blue", ["50% ral 3000", "50% blue"]),
        ("1,5% a, 2,25 %b;,;c", ["1,5% a", "2,25 %b", "c"]),
        ("sizes 1,2, 3", ["sizes 1", "2", "3"]),
        (" , ;", []),
    ],
)
def test_splits_at_commas_but_not_at_decimal_commas(text: str, pieces: list[str]) -> None:
    assert split_parts(text) == pieces


@given(mix=mixes())
def test_a_written_mix_reads_back_the_same(mix: Mix) -> None:
    assert parse(str(mix)) == mix


@given(mix=mixes(), data=st.data())
def test_spelling_case_and_spacing_change_nothing(mix: Mix, data: st.DataObject) -> None:
    space = st.sampled_from(["", " ", "  "])
    written = []
    for part in mix.parts:
        assert part.color is not None
        name = data.draw(st.sampled_from(part.color.spellings))
        number = data.draw(
            st.sampled_from([format_share(part.share), f"{part.share:.2f}", f"{part.share:.2f}".replace(".", ",")])
        )
        written.append(f"{number}{data.draw(space)}%{data.draw(space)}{data.draw(st.sampled_from([name, name.upper()]))}")
    assert parse(data.draw(st.sampled_from([",", ", ", " ; "])).join(written)) == mix


@given(text=st.text(alphabet=st.sampled_from("0159%,.;-+ \u2212redblackх½"), max_size=40))
def test_no_text_raises_anything_but_prompt_invalid(text: str) -> None:
    try:
        mix = parse_all(text)
    except PromptInvalid as error:
        assert error.field == "prompt"
    else:
        assert mix is None or parse_all(str(mix)) == mix


def parse_all(text: str) -> Mix | None:
    parts = [part for piece in split_parts(text) if (part := parse_part(piece, PALETTE))]
    return check_mix(parts) if parts else None
