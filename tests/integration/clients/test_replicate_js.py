"""The official JavaScript client, in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.webhooks import secret_of, sign
from shared.wire import compact_json, prediction
from tests.contracts.api import MIX, MODEL, OLD_VERSION
from tests.integration.clients.install import cannot, installed
from tests.integration.clients.service import HASTY_CREATES_PER_MINUTE, HASTY_TOKEN, SECRET, STEPS, TOKEN, Service
from tests.integration.processes import wait_until

HERE = Path(__file__).parent / "js"
OLD_REF = f"nauslava/rubber-tile-lora-v45:{OLD_VERSION}"
ORDER = {"model": MODEL, "input": {"prompt": MIX}}

Call = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def script(pytestconfig: pytest.Config) -> Path:
    """The script, beside the packages of its lock file."""
    npm = shutil.which("npm")
    if not npm or not shutil.which("node"):
        cannot("the JavaScript client needs node and npm on PATH")
    command = [str(npm), "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"]
    pins = [HERE / "package.json", HERE / "package-lock.json"]
    folder = installed(pytestconfig.cache, "replicate-js", pins, lambda _: command)
    return Path(shutil.copy(HERE / "calls.mjs", folder))


@pytest.fixture
def call(service: Service, script: Path) -> Call:
    """Calls the client, and returns its result or error and the methods of the requests that it sent."""

    def run(name: str, *, token: str = TOKEN, **options: object) -> dict[str, Any]:
        given = {"baseUrl": f"{service.base_url}/v1", "token": token} | options
        done = subprocess.run(
            ["node", str(script), name, json.dumps(given)], capture_output=True, text=True, timeout=60, check=True
        )
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    return run


@pytest.mark.parametrize("ref", [MODEL, OLD_REF])
def test_run_waits_and_returns_the_address_of_the_picture(service: Service, call: Call, ref: str) -> None:
    ran = call("run", ref=ref, input={"prompt": MIX, "seed": 42})
    assert ran["result"]["output"].endswith("_50red-30black-20pearl_seed42.png")
    assert ran["requests"] == ["POST"]
    assert len(service.ids()) == 1


@pytest.mark.parametrize("suffix", ["", "/v1", "/v1/"])
def test_run_polls_when_told_to_at_every_base_url(service: Service, call: Call, suffix: str) -> None:
    ran = call(
        "run", baseUrl=service.base_url + suffix, ref=MODEL, input={"prompt": MIX}, wait={"mode": "poll", "interval": 50}
    )
    assert ran["result"]["output"].endswith(".png")
    assert len(ran["requests"]) > 1


@pytest.mark.parametrize("suffix", ["", "/v1", "/v1/v1"])
def test_an_upload_that_is_not_taken_goes_into_the_body(service: Service, call: Call, suffix: str) -> None:
    ran = call("run", baseUrl=service.base_url + suffix, ref=MODEL, input={"prompt": MIX}, attach="a file")
    assert ran["result"]["output"].endswith(".png")
    assert service.store.get(service.ids()[0]).spec.input["image"].startswith("data:")


def test_a_hold_that_expires_goes_on_as_polling_and_never_gives_null(service: Service, call: Call) -> None:
    service.worker.step_s = 0.1
    started_s = time.monotonic()
    ran = call("run", ref=MODEL, input={"prompt": MIX}, wait={"mode": "block", "timeout": 1})
    assert time.monotonic() - started_s > STEPS * 0.1
    assert ran["result"]["output"].endswith(".png")
    assert ran["result"]["seen"][0] == ["starting", None]
    assert ran["requests"].count("POST") == len(service.ids()) == 1


def test_a_blind_repeat_finds_the_order_whose_answer_got_lost(service: Service, call: Call) -> None:
    order = {"model": MODEL, "input": {"prompt": MIX, "seed": 7}}
    made = call("create", order=order, loseFirstAnswer=True)
    assert made["requests"] == ["POST", "POST"]
    assert service.ids() == [made["result"]["id"]]


def test_twenty_clients_with_one_key_are_one_job(service: Service, call: Call) -> None:
    made = call("together", count=20, order=ORDER, headers={"Idempotency-Key": "order-4711"})
    assert len(made["result"]) == 20
    assert set(made["result"]) == set(service.ids())
    assert len(service.ids()) == 1


def test_a_token_that_is_in_a_hurry_gets_429_and_no_job_for_six_tries(service: Service, call: Call) -> None:
    ids = [call("create", token=HASTY_TOKEN, order=ORDER)["result"]["id"] for _ in range(HASTY_CREATES_PER_MINUTE)]
    refused = call("create", token=HASTY_TOKEN, order=ORDER)
    assert refused["status"] == 429
    assert refused["requests"] == ["POST"] * 6
    assert 1 <= int(refused["retryAfter"]) <= 60
    assert "rate_limited" in refused["error"]
    assert service.ids() == ids[::-1]
    assert call("wait", token=HASTY_TOKEN, id=ids[0])["result"]["status"] == "succeeded"


def test_pages_of_250(service: Service, call: Call) -> None:
    service.worker.stopping.set()
    ids = call("createMany", count=250, order=ORDER)["result"][::-1]
    pages = call("pages")["result"]
    assert [len(page) for page in pages] == [100, 100, 50]
    assert [job_id for page in pages for job_id in page] == ids


def test_cancel_a_waiting_prediction(service: Service, call: Call) -> None:
    service.worker.stopping.set()
    made = call("create", order=ORDER)["result"]
    assert call("cancel", id=made["id"])["result"]["status"] == "canceled"


def test_cancel_a_running_prediction(service: Service, call: Call) -> None:
    service.worker.step_s = 0.5
    made = call("create", order=ORDER)["result"]
    wait_until(lambda: service.store.get(made["id"]).status == "running")
    call("cancel", id=made["id"])
    ended = call("wait", id=made["id"])["result"]
    assert (ended["status"], ended["output"]) == ("canceled", None)


def test_webhooks_are_valid_raw_and_parsed(service: Service, call: Call) -> None:
    job_id = call("run", ref=MODEL, input={"prompt": MIX, "negative_prompt": "размыто <b>", "extra": [7.0, 1e-7, None]})
    job = service.store.get(service.ids()[0])
    body = compact_json(prediction(job, base_url=service.base_url))
    signed = {name.lower(): value for name, value in sign(secret_of(SECRET, "shop"), "msg_1", int(time.time()), body).items()}
    verdict = call("validate", body=body.decode(), signed=signed)["result"]
    assert verdict == {"raw": True, "parsed": True, "forged": False, "standard": "succeeded"}
    assert job_id["result"]["output"].endswith(".png")


def test_errors_say_what_is_wrong(call: Call) -> None:
    failed = call("run", ref=MODEL, input={"prompt": "broken"})
    assert failed["error"] == "Prediction failed: the pipeline broke"
    refused = call("create", order={"model": MODEL, "input": {"prompt": "50% red"}})
    assert refused["status"] == 422
    assert '"field":"input.prompt"' in refused["error"]
    stranger = call("create", token="wrong", order=ORDER)
    assert (stranger["status"], stranger["requests"]) == (401, ["POST"])
    assert call("cancel", id="nothing")["status"] == 404


def test_what_surrounds_predictions(call: Call) -> None:
    found = call("surroundings", model=MODEL, words="tile mini", order={"input": {"prompt": MIX}})["result"]
    assert sorted(found.pop("models")) == ["rubber-tile-lora-v45", MODEL.partition("/")[2]]
    assert found == {
        "account": "shop",
        "searched": [MODEL.partition("/")[2]],
        "version": True,
        "versions": 1,
        "hardware": [],
        "deployment": MODEL,
        "deployed": MODEL,
    }


def test_a_stream_ends_with_the_address_of_the_picture(service: Service, call: Call) -> None:
    service.worker.step_s = 0.03
    *logs, output, done = call("stream", ref=MODEL, input={"prompt": MIX})["result"]
    assert {event["event"] for event in logs} == {"logs"} and len(logs) > 3
    assert "".join(event["data"] for event in logs) == service.store.get(service.ids()[0]).logs
    assert (output["event"], done) == ("output", {"event": "done", "data": "{}", "id": done["id"]})
    assert output["data"].startswith(f"{service.base_url}/v1/files/")
    assert call("stream", ref=MODEL, input={"prompt": "broken"})["error"] == '{"detail":"the pipeline broke"}'
