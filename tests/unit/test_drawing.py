from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from api.drawing import render_spec
from api.params import PredictionInput, check_body
from api.problems import BodyInvalid
from shared.errors import InputInvalid
from shared.jobs import RenderSpec
from shared.manifest import Manifest, load_manifest
from shared.prompts import parse_prompt
from shared.settings import REPOSITORY

MIX = "50% red, 30% black, 20% pearl"
PLAIN, GUIDED = (load_manifest(REPOSITORY / "models" / name) for name in ("rubber-tile-lora-v45.toml", "rubber-tile-mini.toml"))


def draw(manifest: Manifest = GUIDED, *, max_candidates: int = 4, **given: Any) -> tuple[RenderSpec, list[str]]:
    wanted = PredictionInput(**({"prompt": MIX} | given))
    parsed = parse_prompt(wanted.prompt, manifest, "lenient")
    return render_spec(wanted, parsed, manifest, negative_prompt=None, seed=42, max_candidates=max_candidates)


def refused(**given: Any) -> InputInvalid:
    with pytest.raises(InputInvalid) as caught:
        draw(**given)
    return caught.value


def test_v45_draws_as_the_service_before_it_did() -> None:
    spec, warnings = draw(PLAIN)
    assert spec == RenderSpec(spec.prompt, None, 42, 20, 7.0, 1024, 1024, "png", 95)
    assert (spec.steps, warnings) == (20, [])


def test_the_manifest_chooses_and_the_order_chooses_otherwise() -> None:
    assert GUIDED.render.guidance_mode == "guided"
    spec, _ = draw(GUIDED)
    assert spec.strength == GUIDED.render.strength
    assert spec.painted == tuple(
        (GUIDED.colors.find(name).hex, share) for name, share in (("red", 50), ("black", 30), ("pearl", 20))
    )  # type: ignore[union-attr]
    assert spec.steps == round(spec.num_inference_steps * GUIDED.render.strength)
    assert draw(GUIDED, guidance_mode="plain")[0].strength is None
    assert draw(PLAIN, guidance_mode="guided")[0].strength == PLAIN.render.strength


@pytest.mark.parametrize("prompt", ["a wet floor", "50% red, 50% unobtainium"])
def test_what_cannot_be_painted_is_drawn_from_words_with_a_warning_or_refused_when_asked_for(prompt: str) -> None:
    spec, warnings = draw(prompt=prompt)
    assert spec.strength is None and "drawn from the words alone" in warnings[0]
    assert refused(prompt=prompt, guidance_mode="guided").field == "input.guidance_mode"
    assert refused(prompt=prompt, num_candidates=2).field == "input.num_candidates"


def test_candidates_are_bounded_by_the_token() -> None:
    assert draw(num_candidates=3)[0].num_candidates == 3
    assert "this token may have 1 drawn" in refused(num_candidates=2, max_candidates=1).detail


def test_a_floor_is_laid_of_seamless_tiles() -> None:
    assert not draw()[0].seamless and draw(seamless=True)[0].seamless
    assert draw(angles=[0, 30])[0].seamless
    assert refused(angles=[30], seamless=False).field == "input.seamless"


def test_grout_that_will_not_show_is_told() -> None:
    assert "grout" in draw(grout=True)[1][0]
    assert draw(grout=True, angles=[45])[1] == []


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"angles": []}, "input.angles"),
        ({"angles": [0, 0]}, "input.angles"),
        ({"angles": [61]}, "input.angles.0"),
        ({"angles": [-1]}, "input.angles.0"),
        ({"angles": [0, 10, 20, 30, 40]}, "input.angles"),
        ({"angles": 30}, "input.angles"),
        ({"num_candidates": 0}, "input.num_candidates"),
        ({"num_candidates": 5}, "input.num_candidates"),
        ({"guidance_mode": "strong"}, "input.guidance_mode"),
        ({"seamless": "yes"}, "input.seamless"),
        ({"legend": 1}, "input.legend"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(BodyInvalid) as caught:
        check_body({"input": {"prompt": MIX} | given})
    assert [entry["field"] for entry in caught.value.invalid_fields] == [field]


def test_the_record_keeps_every_field() -> None:
    spec, _ = draw(angles=[0, 60], grout=True, legend=True, num_candidates=2)
    assert RenderSpec.from_dict(json.loads(json.dumps(asdict(spec)))) == spec


def test_a_record_from_before_these_fields_reads_as_a_plain_picture() -> None:
    fields = asdict(draw(PLAIN)[0])
    old = {name: fields[name] for name in list(fields)[:9]}
    assert RenderSpec.from_dict(old) == draw(PLAIN)[0]
