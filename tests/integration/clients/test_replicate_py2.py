"""The official Python client, version 2. It has the name of version 1, so it lives in a folder and a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.webhooks import secret_of
from tests.contracts.api import MIX, MODEL, OLD_VERSION
from tests.integration.clients.install import installed
from tests.integration.clients.service import HASTY_CREATES_PER_MINUTE, HASTY_TOKEN, SECRET, STEPS, TOKEN, Service
from tests.integration.processes import wait_until

HERE = Path(__file__).parent / "py2"
OLD_REF = f"nauslava/rubber-tile-lora-v45:{OLD_VERSION}"
ORDER = {"version": MODEL, "input": {"prompt": MIX}}

Call = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def packages(pytestconfig: pytest.Config) -> Path:
    """A folder with the client and what it needs."""

    def command(folder: Path) -> list[str]:
        options = ["--quiet", "--no-input", "--no-deps", "--only-binary", ":all:", "--target", str(folder)]
        return [sys.executable, "-m", "pip", "install", *options, "--requirement", "requirements.txt"]

    # Wheels differ between Python versions, so each has a folder.
    name = f"replicate-py2-{sys.implementation.cache_tag}"
    return installed(pytestconfig.cache, name, [HERE / "requirements.txt"], command)


@pytest.fixture
def call(service: Service, packages: Path) -> Call:
    """Calls the client, and returns its result or error and the methods of the requests that it sent."""

    def run(name: str, *, token: str = TOKEN, **options: object) -> dict[str, Any]:
        given = {"base_url": f"{service.base_url}/v1", "token": token} | options
        environment = os.environ | {"PYTHONPATH": str(packages), "REPLICATE_POLL_INTERVAL": "0.05"}
        # -S leaves out the packages of this environment, which has version 1.
        done = subprocess.run(
            [sys.executable, "-S", str(HERE / "calls.py"), name, json.dumps(given)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    return run


@pytest.mark.parametrize("ref", [MODEL, OLD_REF])
def test_run_waits_and_returns_the_address_of_the_picture(service: Service, call: Call, ref: str) -> None:
    ran = call("run", ref=ref, arguments={"input": {"prompt": MIX, "seed": 42}})
    assert ran["result"].endswith("_50red-30black-20pearl_seed42.png")
    assert ran["requests"] == ["POST"]
    assert len(service.ids()) == 1


@pytest.mark.parametrize("suffix", ["", "/v1", "/v1/"])
def test_run_polls_when_told_not_to_wait_at_every_base_url(service: Service, call: Call, suffix: str) -> None:
    arguments = {"input": {"prompt": MIX}, "wait": False}
    ran = call("run", base_url=service.base_url + suffix, ref=MODEL, arguments=arguments)
    assert ran["result"].endswith(".png")
    assert ran["requests"].count("POST") == 1


def test_a_model_as_a_function(call: Call) -> None:
    assert call("use", ref=MODEL, arguments={"input": {"prompt": MIX}})["result"].endswith(".png")


def test_a_hold_that_expires_goes_on_as_polling_and_never_gives_none(service: Service, call: Call) -> None:
    service.worker.step_s = 0.1
    started_s = time.monotonic()
    ran = call("run", ref=MODEL, arguments={"input": {"prompt": MIX}, "wait": 1})
    assert time.monotonic() - started_s > STEPS * 0.1
    assert ran["result"].endswith(".png")
    assert ran["requests"].count("POST") == len(service.ids()) == 1


def test_a_hold_ends_before_the_client_would_order_again(service: Service, call: Call) -> None:
    service.worker.step_s = 0.15
    ran = call("run", ref=MODEL, arguments={"input": {"prompt": MIX}}, timeout_s=2)
    assert ran["result"].endswith(".png")
    assert ran["requests"].count("POST") == len(service.ids()) == 1


def test_a_blind_repeat_finds_the_order_whose_answer_got_lost(service: Service, call: Call) -> None:
    made = call("create", arguments=ORDER, lose_first_answer=True)
    assert made["requests"] == ["POST", "POST"]
    assert service.ids() == [made["result"]["id"]]


def test_a_token_that_is_in_a_hurry_gets_429_and_no_job(service: Service, call: Call) -> None:
    made = call("create_many", token=HASTY_TOKEN, arguments=ORDER, count=HASTY_CREATES_PER_MINUTE)["result"]
    refused = call("create", token=HASTY_TOKEN, arguments=ORDER, max_retries=0)
    assert (refused["status"], refused["error"]["code"]) == (429, "rate_limited")
    assert 1 <= int(refused["retry_after"]) == refused["error"]["retry_after"] <= 60
    assert service.ids() == made[::-1]


def test_250_in_pages(service: Service, call: Call) -> None:
    service.worker.stopping.set()
    ids = call("create_many", arguments=ORDER, count=250)["result"]
    listed = call("listed")
    assert listed["result"] == ids[::-1]
    assert listed["requests"] == ["GET"] * 3


def test_cancel_a_waiting_prediction(service: Service, call: Call) -> None:
    service.worker.stopping.set()
    made = call("create", arguments={"version": OLD_VERSION, "input": {"prompt": MIX}})["result"]
    assert call("cancel", id=made["id"])["result"]["status"] == "canceled"


def test_cancel_a_running_prediction(service: Service, call: Call) -> None:
    service.worker.step_s = 0.5
    made = call("create", arguments=ORDER)["result"]
    wait_until(lambda: service.store.get(made["id"]).status == "running")
    call("cancel", id=made["id"])
    ended = call("wait", id=made["id"])["result"]
    assert (ended["status"], ended["output"]) == ("canceled", None)


def test_errors_say_what_is_wrong(call: Call) -> None:
    assert call("run", ref=MODEL, arguments={"input": {"prompt": "broken"}})["error"] == "the pipeline broke"
    refused = call("create", arguments={"version": MODEL, "input": {"prompt": "50% red"}})
    assert (refused["status"], refused["requests"]) == (422, ["POST"])
    assert refused["error"]["invalid_fields"][0]["field"] == "input.prompt"
    assert call("create", token="wrong", arguments=ORDER)["status"] == 401
    assert call("cancel", id="nothing")["status"] == 404


def test_a_stream_is_the_address_letter_by_letter_as_the_client_polls_for_it(service: Service, call: Call) -> None:
    pieces = call("stream", ref=MODEL, input={"prompt": MIX})["result"]
    assert "".join(pieces).endswith(".png")
    assert len(service.ids()) == 1
    assert call("stream", ref=MODEL, input={"prompt": "broken"})["error"] == "the pipeline broke"


def test_the_clients_own_decoder_reads_the_events(service: Service, call: Call) -> None:
    service.worker.step_s = 0.03
    *logs, output, done = call("events", arguments=ORDER)["result"]
    assert {event["event"] for event in logs} == {"logs"} and len(logs) > 3
    assert "".join(event["data"] for event in logs) == service.store.get(service.ids()[0]).logs
    assert (output["event"], output["data"][-4:]) == ("output", ".png")
    assert (done["event"], done["data"]) == ("done", "{}")
    assert all(event["id"] for event in (*logs, output, done))


def test_what_surrounds_predictions(call: Call) -> None:
    found = call("surroundings", model=MODEL, input={"prompt": MIX})["result"]
    assert len(found.pop("version")) == 64
    assert sorted(found.pop("models")) == ["rubber-tile-lora-v45", MODEL.partition("/")[2]]
    assert found == {
        "account": "shop",
        "hardware": [],
        "secret": secret_of(SECRET, "shop"),
        "deployment": MODEL,
        "deployed": MODEL,
    }
