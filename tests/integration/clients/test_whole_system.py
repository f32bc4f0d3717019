"""The official Python client, unmodified, against everything that `./granule up` starts."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import replicate
import requests
from PIL import Image
from replicate.webhook import Webhooks

from infra.local.stack import OLD_VERSION
from tests.integration.command_line import CommandLine, wait_for

MIX = "50% red, 30% black, 20% pearl"
Message = tuple[dict[str, str], bytes]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, small_models: Path) -> Iterator[str]:
    granule = CommandLine(tmp_path_factory.mktemp("up"), small_models)
    process, address = granule.up()
    yield address
    process.terminate()
    process.wait(timeout=60)
    for left in granule.alive():
        left.kill()


@pytest.fixture
def client(url: str) -> Iterator[replicate.Client]:
    client = replicate.Client(api_token="any", base_url=url)
    yield client
    client._client.close()


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[Message]]]:
    messages: list[Message] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            messages.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", messages
    server.shutdown()
    thread.join()
    server.server_close()


def pixels(answer: requests.Response) -> bytes:
    with Image.open(io.BytesIO(answer.content)) as picture:
        return picture.convert("RGB").tobytes()


@pytest.mark.parametrize("reference", [f"nauslava/rubber-tile-lora-v45:{OLD_VERSION}", "granule/rubber-tile-mini"])
def test_run_returns_a_picture(client: replicate.Client, reference: str) -> None:
    uri = client.run(reference, input={"prompt": MIX, "seed": 42})
    picture = requests.get(str(uri), timeout=10)
    assert picture.status_code == 200 and picture.content.startswith(b"\x89PNG")
    assert str(uri).endswith("_50red-30black-20pearl_seed42.png")


def test_a_prediction_from_create_to_succeeded(client: replicate.Client) -> None:
    prediction = client.predictions.create(version=OLD_VERSION, input={"prompt": MIX})
    assert prediction.status == "starting"
    prediction.wait()
    assert prediction.status == "succeeded" and prediction.error is None
    assert prediction.progress is not None and prediction.progress.percentage == 1.0
    assert prediction.metrics is not None and prediction.metrics["predict_time"] > 0
    again = client.predictions.get(prediction.id)
    assert again.output == prediction.output
    assert prediction.id in [listed.id for listed in client.predictions.list().results]


def test_the_same_seed_gives_the_same_bytes(url: str, client: replicate.Client) -> None:
    fresh = replicate.Client(api_token="any", base_url=url, headers={"Cache-Control": "no-cache"})

    def draw(with_client: replicate.Client, prompt: str, seed: int) -> requests.Response:
        given = {"prompt": prompt, "seed": seed, "output_format": "webp"}
        return requests.get(str(with_client.run("granule/rubber-tile-mini", input=given)), timeout=10)

    first, second, same = draw(fresh, MIX, 1), draw(fresh, MIX, 2), draw(fresh, f" {MIX}", 1)
    assert first.headers["Content-Type"] == "image/webp"
    assert first.content != second.content
    # The file says which job made it; the pixels do not.
    assert first.content != same.content and pixels(first) == pixels(same) != pixels(second)
    # A caller who does not insist on a fresh one gets the stored picture, to the byte, at an address of its own.
    stored = draw(client, f"{MIX} ", 1)
    assert stored.content == same.content and stored.url != same.url
    fresh._client.close()


def test_a_waiting_prediction_is_canceled(client: replicate.Client) -> None:
    queued = [client.predictions.create(version=OLD_VERSION, input={"prompt": MIX}) for _ in range(4)]
    queued[-1].cancel()
    queued[-1].reload()
    assert queued[-1].status == "canceled" and queued[-1].output is None
    for prediction in queued[:-1]:
        prediction.wait()
        assert prediction.status == "succeeded"


def test_the_client_accepts_the_webhooks(client: replicate.Client, receiver: tuple[str, list[Message]]) -> None:
    address, messages = receiver
    events = ["start", "output", "logs", "completed"]
    prediction = client.predictions.create(
        version=OLD_VERSION, input={"prompt": MIX}, webhook=address, webhook_events_filter=events
    )
    wait_for(lambda: any(json.loads(body)["status"] == "succeeded" for _, body in messages), 60)
    secret = client.webhooks.default.secret()
    for headers, body in messages:
        Webhooks.validate(headers=headers, body=body.decode(), secret=secret, tolerance=60)
        assert json.loads(body)["id"] == prediction.id
    assert {headers["granule-event"] for headers, _ in messages} >= {"start", "output", "completed"}
    assert len({headers["webhook-id"] for headers, _ in messages}) == len(messages)


def test_a_wrong_order_is_refused_with_the_field(client: replicate.Client) -> None:
    with pytest.raises(replicate.exceptions.ReplicateError) as refusal:
        client.predictions.create(version=OLD_VERSION, input={"prompt": "50% red, 30% black"})
    assert refusal.value.status == 422 and "80" in str(refusal.value.detail)
