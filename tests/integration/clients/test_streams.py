"""Event streams through a real gunicorn: the official Python client, and readers who leave."""

from __future__ import annotations

import time

import httpx
import pytest
from replicate.stream import ServerSentEvent

from shared.settings import Settings
from tests.contracts.api import MIX, MODEL
from tests.integration.clients.service import Service
from tests.integration.processes import wait_until

Kind = ServerSentEvent.EventType


def open_stream(client: httpx.Client, url: str) -> httpx.Response:
    """The answer of a stream, of which nothing was read yet."""
    return client.send(client.build_request("GET", url), stream=True)


def test_the_official_client_reads_a_stream(service: Service) -> None:
    service.worker.step_s = 0.03
    events = list(service.client().stream(MODEL, input={"prompt": MIX}))
    *logs, output, done = events
    assert {event.event for event in logs} == {Kind.LOGS} and len(logs) > 3
    assert (output.event, done.event, done.data) == (Kind.OUTPUT, Kind.DONE, "{}")
    prediction = service.client().predictions.get(service.ids()[0])
    assert "".join(event.data for event in logs) == prediction.logs
    assert output.data == str(output) == prediction.output


def test_an_ended_prediction_is_streamed_once_more(service: Service) -> None:
    client = service.client()
    prediction = client.predictions.create(model=MODEL, input={"prompt": MIX})
    prediction.wait()
    assert [event.event for event in prediction.stream()] == [Kind.LOGS, Kind.OUTPUT, Kind.DONE]


def test_the_official_client_raises_what_went_wrong(service: Service) -> None:
    with pytest.raises(RuntimeError, match="the pipeline broke"):
        list(service.client().stream(MODEL, input={"prompt": "broken"}))


def test_a_canceled_prediction_ends_its_stream(service: Service) -> None:
    service.worker.step_s = 0.1
    client = service.client()
    prediction = client.predictions.create(model=MODEL, input={"prompt": MIX})
    events = prediction.stream()
    assert next(events).event is Kind.LOGS
    prediction.cancel()
    *_, done = events
    assert (done.event, done.data) == (Kind.DONE, '{"reason":"canceled"}')


def test_readers_who_leave_make_room_for_others(service: Service) -> None:
    service.worker.step_s = 0.2
    url = service.client().predictions.create(model=MODEL, input={"prompt": MIX}).urls["stream"]
    with httpx.Client(timeout=30) as client:
        opened = [open_stream(client, url) for _ in range(Settings().streams_max)]
        assert {answer.status_code for answer in opened} == {200}
        refused = client.get(url)
        assert (refused.status_code, refused.json()["code"]) == (429, "streams_full")
        assert refused.headers["Retry-After"].isdigit()
        for answer in opened:
            answer.close()

        def let_in() -> bool:
            answer = open_stream(client, url)
            answer.close()
            return answer.status_code == 200

        # Whoever left is noticed at the second event after.
        assert wait_until(let_in, timeout_s=5) < 3


def test_the_api_goes_on_answering_while_streams_are_open(service: Service) -> None:
    service.worker.stopping.set()
    url = service.client().predictions.create(model=MODEL, input={"prompt": MIX}).urls["stream"]
    with httpx.Client(timeout=30) as client:
        opened = [open_stream(client, url) for _ in range(Settings().streams_max)]
        started_s = time.monotonic()
        assert len(service.client().predictions.list().results) == 1
        assert time.monotonic() - started_s < 2
        service.client().predictions.cancel(service.ids()[0])
        for answer in opened:
            assert answer.read().decode().endswith('data: {"reason":"canceled"}\n\n')
