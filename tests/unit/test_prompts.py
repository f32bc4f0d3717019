from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import PromptInvalid
from shared.manifest import Manifest, load_manifest
from shared.prompts import MAX_CHARACTERS, ParsedPrompt, Policy, clean, parse_negative_prompt, parse_prompt
from shared.tokens import MAX_TOKENS, count_tokens

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "models"
V45 = load_manifest(MODELS / "rubber-tile-lora-v45.toml")
TOKENS = ("<s0>", "<s1>")
TRIGGER = "ohwx_rubber_tile <s0><s1>"
TAIL = "photorealistic rubber tile, high quality, detailed texture"
MIX = "50% red, 30% black, 20% pearl"
FULL = f"{TRIGGER}, {MIX}, {TAIL}"


def parse(text: str, policy: Policy = "lenient", manifest: Manifest = V45) -> ParsedPrompt:
    return parse_prompt(text, manifest, policy)


def refused(text: str, policy: Policy = "lenient") -> str:
    with pytest.raises(PromptInvalid) as caught:
        parse(text, policy)
    assert caught.value.field == "prompt"
    return caught.value.detail


@pytest.mark.parametrize("policy", ["lenient", "strict"])
def test_the_product_prompt_is_exactly_the_old_service_s(policy: Policy) -> None:
    parsed = parse(MIX, policy)
    assert parsed.prompt == FULL
    assert parsed.text == MIX and str(parsed.mix) == MIX and parsed.warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        FULL,
        f"{TRIGGER}, {MIX}",
        f"{TRIGGER} {MIX}",
        f"{MIX}, {TRIGGER}",
        f"{MIX}, {TAIL}",
        f"  OHWX_rubber_tile<S0> <s1> ,50%RED;30% BLACK , 20 % PEARL, {TAIL.upper().replace(', ', ' ,')}",
        "５０％ red, 30%\u00a0black,\u300020% pe\u200barl",
        "50% красный, 30% чёрного, 20% жемчужный",
        "50% RED,\n30% BLACK,\n20% PEARL",
    ],
)
def test_the_template_is_applied_once_whatever_was_sent(text: str) -> None:
    parsed = parse(text, "strict")
    assert parsed.prompt == FULL
    assert parsed.text == text


def test_a_longer_tail_of_the_caller_s_own_is_kept_and_nothing_is_doubled() -> None:
    text = f"{FULL}, professional photography"
    parsed = parse(text)
    assert parsed.prompt == text
    assert len(parsed.warnings) == 1 and "'professional photography'" in parsed.warnings[0]


def test_a_trigger_inside_free_text_stays_there() -> None:
    parsed = parse(f"top view of {TRIGGER}, 100% red")
    assert parsed.prompt == f"top view of {TRIGGER}, 100% red, {TAIL}"


def test_a_bare_colour_is_a_whole_tile_of_it() -> None:
    parsed = parse("DKGREEN", "strict")
    assert str(parsed.mix) == "100% dark green"
    assert parsed.warnings == ("'DKGREEN' was read as '100% dark green'",)


def test_lenient_passes_unknown_colours_on_and_offers_both_readings() -> None:
    parsed = parse("50% navy, 50% Red")
    assert f"{TRIGGER}, 50% navy, 50% red, {TAIL}" == parsed.prompt
    assert parsed.mix is not None and [color.name for color, _ in parsed.mix.ordered] == ["red"]
    assert parsed.warnings == ("'navy' is no colour of the palette; did you mean 'blue' or 'dark blue'?",)
    assert "'dark green'" in parse("50% green, 50% red").warnings[0]
    assert "'grass green'" in parse("50% green, 50% red").warnings[0]


def test_lenient_passes_free_text_on_as_written() -> None:
    parsed = parse("A Rubber tile; red,black")
    assert parsed.mix is None
    assert parsed.prompt == f"{TRIGGER}, A Rubber tile; red,black, {TAIL}"
    assert "'red' has no share; write one before it, as in '50% red'" in parsed.warnings


def test_lenient_keeps_free_text_beside_a_mix_in_its_place() -> None:
    parsed = parse("studio light, 50% red, 50% BLACK, top view")
    assert parsed.prompt == f"{TRIGGER}, studio light, 50% red, 50% black, top view, {TAIL}"
    assert str(parsed.mix) == "50% red, 50% black"
    assert len(parsed.warnings) == 2


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("50% navy, 50% red", "did you mean 'blue' or 'dark blue'?"),
        ("green", "did you mean 'dark green', 'emerald'"),
        ("red, black", "'red' has no share"),
        ("50% red, 50% black, top view", "'top view' is no share"),
        ("a kitchen", "'a kitchen' is no share of a palette colour, as in '50% red, 30% black, 20% pearl'"),
    ],
)
def test_strict_refuses_all_but_palette_colours(text: str, named: str) -> None:
    assert named in refused(text, "strict")


@pytest.mark.parametrize("policy", ["lenient", "strict"])
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "the prompt is empty"),
        (" ,;\u00a0\u200b ", "the prompt is empty"),
        (TRIGGER, "the prompt is empty"),
        (f"{TRIGGER}, {TAIL}", "the prompt is empty"),
        ("50% red, 40% black", "10% is missing"),
        ("50% red, 40% navy", "10% is missing"),
        ("50% red, black", "50% is missing"),
        ("50% red, 50% rot\x00", "U+0000 at position 16"),
        ("50% red\x1b[2J", "U+001B at position 7"),
        ("\ud800", "U+D800"),
        ("100% red <s0>", "holds <s0>, a token of the model itself"),
        ("100% red <S1>", "holds <s1>"),
        ("100% red ＜s1＞", "holds <s1>"),
        ("100% red <s\u200b0>", "holds <s0>"),
        (f"<s {TRIGGER} 0>x<s0>", "holds <s0>"),
        (f"{TRIGGER}, {TRIGGER}, 100% red", "more than once"),
        ("100% red <|endoftext|>", "holds <|endoftext|>"),
        ("x" * (MAX_CHARACTERS + 1), f"at most {MAX_CHARACTERS} are read"),
    ],
)
def test_either_policy_refuses_what_no_model_should_see(text: str, named: str, policy: Policy) -> None:
    assert named in refused(text, policy)


def test_a_prompt_longer_than_the_model_reads_is_refused_with_the_counts() -> None:
    fits = ", ".join(["stone"] * 28) + " red"
    assert count_tokens(parse(fits).prompt, TOKENS) == MAX_TOKENS
    detail = refused(fits + ", x")
    assert "takes 79 tokens" in detail and "reads 77" in detail and "leave out 2" in detail


def test_the_manual_quotes_what_the_code_says() -> None:
    manual = (REPOSITORY / "docs" / "prompts.md").read_text(encoding="utf-8")
    table = manual[manual.index("| input | detail |") :].split("\n\n")[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()[2:]]
    assert len(rows) >= 8
    for text, detail in rows:
        assert refused(text.strip("`") if text.startswith("`") else "") == detail
    for warning in (parse("50% navy, 50% red").warnings[0], parse("red, black").warnings[0], parse(MIX).prompt):
        assert f"\n{warning}\n" in manual


def test_nine_colours_in_whole_percents_fit() -> None:
    longest = sorted(V45.colors.colors, key=lambda color: -len(color.name.split()))[:9]
    shares = [12, *[11] * 8]
    parsed = parse(", ".join(f"{share}% {color.name}" for share, color in zip(shares, longest, strict=True)), "strict")
    assert count_tokens(parsed.prompt, TOKENS) <= MAX_TOKENS


def test_negative_prompts_are_checked_and_left_alone() -> None:
    assert parse_negative_prompt("", V45) == ""
    assert parse_negative_prompt(" blurry,\u00a0text ; 50%  red", V45) == "blurry, text ; 50% red"
    assert parse_negative_prompt(V45.prompt.negative_prompt, V45) == V45.prompt.negative_prompt
    for text, named in [("blurry " * 80, "takes 82 tokens"), ("<s0>", "holds <s0>"), ("\x07", "U.0007")]:
        with pytest.raises(PromptInvalid, match=named) as caught:
            parse_negative_prompt(text, V45)
        assert caught.value.field == "negative_prompt"


def test_other_templates_work_the_same() -> None:
    prompt = V45.prompt.model_copy(update={"trigger": "TOK", "template": "photo of TOK, {prompt}"})
    other = V45.model_copy(update={"prompt": prompt, "textual_inversion": None})
    for text in ("100% red", "TOK, 100% red", "tok 100% red", "photo of TOK, 100% red", "100% red, TOK"):
        assert parse(text, "strict", other).prompt == "photo of TOK, 100% red", text
    assert parse("TOKEN ring", "lenient", other).prompt == "photo of TOK, TOKEN ring"
    behind = V45.model_copy(update={"prompt": prompt.model_copy(update={"template": "{prompt}, TOK"})})
    for text in ("100% red", "100% red, TOK", "TOK 100% red"):
        assert parse(text, "strict", behind).prompt == "100% red, TOK", text


JUNK = st.one_of(
    st.text(max_size=80),
    st.text(alphabet=st.sampled_from("05%,;. redblackгe<s01>|\u200b\u0301\x00\ud800"), max_size=60),
    st.lists(st.sampled_from(["50%", "red", ",", " ", TRIGGER, "<s0>", TAIL, "black", "green", "x"]), max_size=12).map("".join),
)


@given(text=JUNK, policy=st.sampled_from(["lenient", "strict"]))
@example(text="İ<S0>", policy="lenient")
def test_any_text_renders_within_the_bounds_or_is_refused(text: str, policy: Policy) -> None:
    try:
        parsed = parse(text, policy)
    except PromptInvalid as error:
        assert error.field == "prompt"
        return
    assert parsed.text == text
    assert [parsed.prompt.count(token) for token in TOKENS] == [1, 1]
    assert count_tokens(parsed.prompt, TOKENS) <= MAX_TOKENS
    assert parse(parsed.prompt, policy).prompt == parsed.prompt


@given(text=st.text(max_size=100))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    try:
        once = clean(text, field="prompt")
    except PromptInvalid:
        return
    assert clean(once, field="prompt") == once
