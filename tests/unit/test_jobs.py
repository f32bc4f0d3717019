"""What is written into a job's record, and what versions before and after this one make of it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from shared.jobs import Event, JobSpec, Lane, Result
from tests.contracts.jobs import new_result, new_spec

GUIDED = replace(new_spec().render, strength=0.6, painted=(("#C00000", 100.0),), angles=(0, 30), legend=True)


@pytest.mark.parametrize(
    "spec",
    [
        new_spec(),
        new_spec(
            render=GUIDED, lane=Lane.HIGH, webhook="https://shop.example", webhook_events=[Event.START], cancel_after_s=9.0
        ),
    ],
    ids=["plain", "all fields"],
)
def test_a_spec_reads_back_as_it_was_written(spec: JobSpec) -> None:
    assert JobSpec.from_json(spec.to_json()) == spec
    assert JobSpec.from_json(json.dumps(asdict(spec))) == spec


def test_a_version_that_lacks_a_field_reads_the_orders_that_do_not_use_it() -> None:
    plain = json.loads(new_spec().to_json())
    assert not {"deployment", "stream_token", "cancel_after_s", "webhook"} & plain.keys()
    assert plain["render"].keys() == {
        "prompt", "negative_prompt", "seed", "num_inference_steps", "guidance_scale", "width_px", "height_px",
        "output_format", "output_quality",
    }  # fmt: skip
    guided = json.loads(new_spec(render=GUIDED).to_json())
    assert guided["render"].keys() - plain["render"].keys() == {"strength", "painted", "angles", "legend"}


def test_an_order_with_an_unknown_field_is_not_drawn_without_it() -> None:
    spec = json.loads(new_spec().to_json())
    spec["render"]["glaze"] = "matt"
    with pytest.raises(TypeError, match="glaze"):
        JobSpec.from_json(json.dumps(spec))


def test_what_a_newer_worker_measured_is_passed_over() -> None:
    newer = asdict(new_result()) | {"gloss_score": 0.5}
    newer["outputs"][0]["width_px"] = 1024
    assert Result.from_json(json.dumps(newer)) == new_result()


def test_a_result_from_before_there_were_small_versions_has_none() -> None:
    older = asdict(new_result())
    del older["thumbnails"]
    assert Result.from_json(json.dumps(older)) == new_result()
