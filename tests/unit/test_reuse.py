from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

from shared.reuse import render_key
from tests.contracts.jobs import new_spec


def test_what_a_plain_order_is_known_by_stays_as_it_was_before_profiles_had_models() -> None:
    spec = new_spec()
    render = {name: value for name, value in asdict(spec.render).items() if name != "distilled"}
    text = json.dumps([spec.model, spec.version, render], sort_keys=True, separators=(",", ":"))
    assert render_key(spec) == hashlib.sha256(text.encode()).hexdigest()


def test_a_picture_of_a_distilled_model_answers_no_other_order() -> None:
    spec = new_spec()
    draft, other = (replace(spec, render=replace(spec.render, distilled=name)) for name in ("draft", "sketch"))
    assert len({render_key(spec), render_key(draft), render_key(other)}) == 3
