"""The official Python client, version 1."""

from __future__ import annotations

import time

import pytest
from replicate.exceptions import ModelError, ReplicateError
from replicate.helpers import FileOutput
from replicate.pagination import paginate
from replicate.webhook import Webhooks, WebhookValidationError

from shared.webhooks import secret_of, sign
from shared.wire import compact_json, prediction
from tests.contracts.api import MIX, MODEL, OLD_VERSION
from tests.integration.clients.service import (
    HASTY_CREATES_PER_MINUTE,
    HASTY_TOKEN,
    PICTURE,
    SECRET,
    STEPS,
    Service,
)
from tests.integration.processes import wait_until


@pytest.mark.parametrize("suffix", ["", "/", "/v1"])
@pytest.mark.parametrize("ref", [MODEL, f"nauslava/rubber-tile-lora-v45:{OLD_VERSION}"])
def test_run_waits_and_returns_the_address_of_the_picture(service: Service, suffix: str, ref: str) -> None:
    output = service.client(service.base_url + suffix).run(ref, input={"prompt": MIX, "seed": 42})
    assert output.startswith(f"{service.base_url}/v1/files/")
    assert output.endswith("_50red-30black-20pearl_seed42.png")
    assert len(service.store.list_jobs("shop")) == 1


def test_run_polls_when_told_not_to_wait(service: Service) -> None:
    assert service.client().run(MODEL, input={"prompt": MIX}, wait=False).endswith(".png")


def test_the_picture_is_read_although_the_client_sends_its_token_along(service: Service) -> None:
    client = service.client()
    output = client.run(MODEL, input={"prompt": MIX})
    assert FileOutput(output, client).read() == PICTURE


def test_a_hold_that_expires_goes_on_as_polling_and_never_gives_none(service: Service) -> None:
    service.worker.step_s = 0.1
    started_s = time.monotonic()
    output = service.client().run(MODEL, input={"prompt": MIX}, wait=1)
    assert time.monotonic() - started_s > STEPS * 0.1
    assert output.endswith(".png")
    assert len(service.store.list_jobs("shop")) == 1


def test_create_with_the_64_hex_version_then_wait(service: Service) -> None:
    service.worker.step_s = 0.03
    prediction = service.client().predictions.create(version=OLD_VERSION, input={"prompt": MIX})
    assert (prediction.status, prediction.version) == ("starting", OLD_VERSION)
    seen = []
    while prediction.status not in ("succeeded", "failed", "canceled"):
        prediction.reload()
        seen.append(prediction.progress.percentage if prediction.progress else 0.0)
    assert prediction.status == "succeeded"
    assert prediction.metrics["predict_time"] > 0
    assert seen == sorted(seen)
    assert any(0 < fraction < 1 for fraction in seen)


def test_the_three_ways_to_name_what_to_run(service: Service) -> None:
    client = service.client()
    version = client.models.get(MODEL).latest_version
    for named in ({"version": version}, {"model": MODEL}, {"deployment": MODEL}):
        assert client.predictions.create(**named, input={"prompt": MIX}).model == MODEL
    assert client.run(version, input={"prompt": MIX}).endswith(".png")


def test_cancel_a_running_prediction(service: Service) -> None:
    service.worker.step_s = 0.5
    client = service.client()
    prediction = client.predictions.create(model=MODEL, input={"prompt": MIX})
    wait_until(lambda: client.predictions.get(prediction.id).status == "processing")
    prediction.cancel()
    prediction.wait()
    assert (prediction.status, prediction.output) == ("canceled", None)


def test_cancel_a_waiting_prediction(service: Service) -> None:
    service.worker.stopping.set()
    client = service.client()
    assert client.predictions.cancel(client.predictions.create(model=MODEL, input={"prompt": MIX}).id).status == "canceled"


def test_list_and_paginate(service: Service) -> None:
    service.worker.stopping.set()
    client = service.client()
    ids = [client.predictions.create(model=MODEL, input={"prompt": MIX}).id for _ in range(250)][::-1]
    pages = list(paginate(client.predictions.list))
    assert [len(page) for page in pages] == [100, 100, 50]
    assert [prediction.id for page in pages for prediction in page] == ids
    assert [prediction.id for prediction in client.predictions.list(pages[2].previous)] == ids[100:200]


def test_a_token_that_is_in_a_hurry_gets_429_and_no_job(service: Service) -> None:
    client = service.client(token=HASTY_TOKEN)
    made = [client.predictions.create(model=MODEL, input={"prompt": MIX}).id for _ in range(HASTY_CREATES_PER_MINUTE)]
    with pytest.raises(ReplicateError) as refused:
        client.predictions.create(model=MODEL, input={"prompt": MIX})
    assert (refused.value.status, refused.value.title) == (429, "Too many requests")
    assert f"{HASTY_CREATES_PER_MINUTE} orders in a minute" in refused.value.detail
    assert service.ids() == made[::-1]
    assert client.predictions.get(made[0]).id == made[0]


def test_a_webhook_is_validated_raw_and_forged_ones_are_not(service: Service) -> None:
    client = service.client()
    client.run(MODEL, input={"prompt": MIX, "negative_prompt": "размыто <b>"})
    body = compact_json(prediction(service.store.get(service.ids()[0]), base_url=service.base_url))
    secret = client.webhooks.default.secret()
    signed = {name.lower(): value for name, value in sign(secret.key, "msg_1", int(time.time()), body).items()}
    Webhooks.validate(headers=signed, body=body.decode(), secret=secret, tolerance=60)
    with pytest.raises(WebhookValidationError):
        Webhooks.validate(headers=signed, body=body.decode().replace("succeeded", "canceled"), secret=secret)
    late = {name.lower(): value for name, value in sign(secret.key, "msg_1", int(time.time()) - 600, body).items()}
    with pytest.raises(WebhookValidationError):
        Webhooks.validate(headers=late, body=body.decode(), secret=secret, tolerance=60)


def test_a_failure_is_the_models_and_an_error_names_the_field(service: Service) -> None:
    client = service.client()
    with pytest.raises(ModelError, match="the pipeline broke"):
        client.run(MODEL, input={"prompt": "broken"})
    with pytest.raises(ReplicateError) as caught:
        client.run(MODEL, input={"prompt": "50% red"})
    assert (caught.value.status, caught.value.title) == (422, "Input validation failed")
    assert "must sum to 100%" in caught.value.detail
    with pytest.raises(ReplicateError) as caught:
        service.client(token="wrong").predictions.list()
    assert (caught.value.status, caught.value.title) == (401, "Unauthenticated")


def test_what_surrounds_predictions(service: Service) -> None:
    client = service.client()
    assert client.accounts.current().username == "shop"
    assert client.webhooks.default.secret().key == secret_of(SECRET, "shop")
    assert client.hardware.list() == []
    assert {model.id for model in client.models.list()} == {MODEL, "nauslava/rubber-tile-lora-v45"}
    assert [model.id for model in client.models.search("tile mini")] == [MODEL]
    assert client.models.get(MODEL).versions.list()[0].openapi_schema["components"]["schemas"]["Output"]["type"] == "string"
    assert client.deployments.get(MODEL).current_release.model == MODEL
