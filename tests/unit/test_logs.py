"""Log lines for a collector: one JSON object each, with the ids of the job and the request that they speak of."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from api.server import create_app
from shared.logs import REQUEST_ID, JsonFormatter
from tests.contracts.api import SETTINGS, idle_storage


@pytest.fixture(autouse=True)
def _no_request() -> Iterator[None]:
    token = REQUEST_ID.set(None)
    yield
    REQUEST_ID.reset(token)


def line(**extra: str) -> dict[str, str]:
    record = logging.makeLogRecord({"name": "worker.runner", "levelname": "INFO", "msg": "job %s", "args": ("j1",), **extra})
    found: dict[str, str] = json.loads(JsonFormatter().format(record))
    return found


def test_a_line_has_the_job_it_speaks_of() -> None:
    found = line(job_id="j1")
    assert (found["level"], found["logger"], found["message"], found["job_id"]) == ("INFO", "worker.runner", "job j1", "j1")
    assert found["time"].endswith("+00:00")
    assert set(line()) == {"time", "level", "logger", "message"}


def test_an_error_has_its_traceback_in_the_same_line() -> None:
    try:
        raise ValueError("of no use")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "it failed", None, (ValueError, error, error.__traceback__))
    text = JsonFormatter().format(record)
    assert "\n" not in text and "ValueError: of no use" in json.loads(text)["traceback"]


def test_the_apis_lines_have_the_name_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(SETTINGS, storage=idle_storage())

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("a bug")

    caplog.handler.setFormatter(JsonFormatter())
    client = app.test_client()
    assert client.get("/broken", headers={"X-Request-Id": "order-17"}).status_code == 500
    [found] = [json.loads(text) for text in caplog.text.splitlines() if "a bug" in text]
    assert found["request_id"] == "order-17"
