from __future__ import annotations

import json
import math
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replicate.prediction import Prediction as OfficialPrediction

from shared.jobs import Job, JobError, Output, Status
from shared.wire import compact_json, iso_time, prediction
from tests.contracts.jobs import new_result, new_spec

BASE = "https://tiles.example.com"
CREATED_MS = 1_763_800_000_123


def new_job(status: Status = Status.QUEUED, **changes: object) -> Job:
    job = Job(spec=new_spec(), status=status, created_ms=CREATED_MS, seq=7)
    return replace(job, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (Status.QUEUED, "starting"),
        (Status.RUNNING, "processing"),
        (Status.SUCCEEDED, "succeeded"),
        (Status.FAILED, "failed"),
        (Status.CANCELED, "canceled"),
    ],
)
def test_every_status_has_a_word_that_the_official_client_reads(status: Status, word: str) -> None:
    body = prediction(new_job(status), base_url=BASE)
    assert body["status"] == word
    assert OfficialPrediction(**body).status == word


def test_strings_where_clients_demand_strings() -> None:
    body = prediction(new_job(Status.FAILED, error=JobError("out_of_memory", "no memory left")), base_url=BASE)
    assert body["error"] == "no memory left"
    assert body["error_code"] == "out_of_memory"
    assert body["logs"] == ""
    assert all(isinstance(url, str) and url.startswith(BASE + "/v1/") for url in body["urls"].values())


def test_one_picture_is_one_address_and_several_are_a_list() -> None:
    one = new_result()
    two = replace(one, outputs=[*one.outputs, Output("k", "a b.png", "image/png", 3, "cd" * 32)])
    job = new_job(Status.SUCCEEDED, result=one)
    first = f"{BASE}/v1/files/{job.spec.file_token}/tile.png"
    assert prediction(job, base_url=BASE)["output"] == first
    assert prediction(replace(job, result=two), base_url=BASE)["output"] == [first, first.replace("tile.png", "a%20b.png")]


def test_small_versions_have_addresses_beside_the_pictures() -> None:
    small = Output("k", "tile_thumb.webp", "image/webp", 3, "cd" * 32)
    job = new_job(Status.SUCCEEDED, result=replace(new_result(), thumbnails=[small]))
    assert prediction(job, base_url=BASE)["thumbnails"] == [f"{BASE}/v1/files/{job.spec.file_token}/tile_thumb.webp"]
    before_there_were_any = replace(job, result=new_result())
    assert prediction(before_there_were_any, base_url=BASE)["thumbnails"] == []


def test_times_metrics_and_progress() -> None:
    running = prediction(new_job(Status.RUNNING, started_ms=CREATED_MS + 500, step=5), base_url=BASE)
    assert running["created_at"] == "2025-11-22T08:26:40.123Z"
    assert running["started_at"] == "2025-11-22T08:26:40.623Z"
    assert running["progress"] == {"step": 5, "steps": 20, "fraction": 0.25}
    assert running["metrics"] == {}
    done = new_job(Status.SUCCEEDED, result=new_result(), completed_ms=CREATED_MS + 2250)
    assert prediction(done, base_url=BASE)["metrics"] == {"predict_time": 1.5, "total_time": 2.25}
    assert prediction(done, base_url=BASE)["progress"]["fraction"] == 1.0


def test_iso_time_keeps_milliseconds_at_a_whole_second() -> None:
    assert iso_time(1_700_000_000_000) == "2023-11-14T22:13:20.000Z"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7.0, "7"), (-0.0, "0"), (0.1, "0.1"), (1e-05, "0.00001"), (1.5e-06, "0.0000015"), (1e-07, "1e-7"), (1e21, "1e+21"),
        (1.2345678901234567e20, "123456789012345670000"), (-2.5e-10, "-2.5e-10"), (5e-324, "5e-324"),
    ],
)  # fmt: skip
def test_floats_are_written_as_javascript_writes_them(value: float, text: str) -> None:
    assert compact_json([value]) == f"[{text}]".encode()


def test_compact_json_escapes_no_more_than_javascript() -> None:
    assert compact_json({"a": "50% красный \u2028\x7f", "b": [True, None, 1]}) == (
        '{"a":"50% красный \u2028\x7f","b":[true,null,1]}'.encode()
    )
    assert compact_json(["\ud800"]) == b'["\\ud800"]'


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        compact_json({"a": value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON))
def test_compact_json_reads_back_as_what_was_written(body: dict[str, object]) -> None:
    assert json.loads(compact_json(body)) == body


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_node_writes_the_same_bytes_again() -> None:
    floats = [10.0**n * m for n in range(-30, 31) for m in (1, 1.5, 1.2345678901234567, -9.999999999999999)]
    body = compact_json({"floats": floats, "text": 'ё"\\\n\t\u2028\x01😀', "prediction": prediction(new_job(), base_url=BASE)})
    script = "process.stdout.write(JSON.stringify(JSON.parse(require('fs').readFileSync(0, 'utf8'))))"
    again = subprocess.run(["node", "-e", script], input=body, capture_output=True, check=True, timeout=60)
    assert again.stdout == body
