"""The event stream's contract: the same tests run on fakeredis and on the real server."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass

from flask import Flask
from flask.testing import FlaskClient
from pytest import MonkeyPatch

from api import stream
from api.server import create_app
from shared.job_store import JobStore
from shared.jobs import JobError
from tests.contracts.api import MIX, MODEL, SETTINGS, ApiContract, idle_storage
from tests.contracts.jobs import new_result


@dataclass(frozen=True)
class Event:
    """One event as a reader by the specification of server-sent events sees it."""

    name: str
    data: str
    id: str


def parse(body: str) -> list[Event]:
    """Read a whole stream. Blocks without data are none: comments, and the time to wait before connecting again."""
    events = []
    for block in body.split("\n\n"):
        fields: dict[str, list[str]] = {}
        for line in block.splitlines():
            name, _, value = line.partition(": ")
            fields.setdefault(name.removesuffix(":"), []).append(value)
        if "data" in fields:
            events.append(Event(fields["event"][0], "\n".join(fields["data"]), fields["id"][0]))
    return events


class StreamContract(ApiContract):
    """`urls.stream`."""

    def path(self, client: FlaskClient) -> tuple[str, str]:
        """Id of a new prediction, and the path of its stream."""
        made = client.post("/v1/predictions", json={"version": MODEL, "input": {"prompt": MIX}, "stream": True}).json
        return made["id"], made["urls"]["stream"].removeprefix("http://localhost")

    def read(self, app: Flask, path: str, after: str = "") -> list[Event]:
        """Read a stream to its end without any token, as JavaScript's official client does."""
        answer = app.test_client().get(path, headers={"Last-Event-ID": after} if after else {})
        assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        return parse(answer.text)

    def test_the_events_are_those_of_the_description(self, app: Flask, client: FlaskClient, store: JobStore) -> None:
        job_id, path = self.path(client)
        store.cancel(job_id)
        answers = client.get("/openapi.json").json["paths"]["/v1/streams/{prediction_id}/{token}"]["get"]["responses"]
        described = answers["200"]["content"]["text/event-stream"]["schema"]
        assert described["type"] == "object"
        [event] = self.read(app, path)
        assert event.name in described["properties"]["event"]["enum"]
        fields = {line.partition(":")[0] for line in app.test_client().get(path).text.splitlines() if line}
        assert fields == set(described["properties"])

    def test_events_come_as_they_happen(self, app: Flask, client: FlaskClient, store: JobStore) -> None:
        job_id, path = self.path(client)
        came: list[tuple[str, float]] = []

        def work() -> None:
            fence = self.claim(store, job_id)
            for step in (1, 2):
                time.sleep(0.4)
                store.renew(job_id, fence, step=step, log=f"{step}/20\n")
            time.sleep(0.4)
            store.succeed(job_id, fence, new_result())

        worker = threading.Thread(target=work)
        worker.start()
        started_s = time.monotonic()
        answer = app.test_client().get(path, buffered=False)
        for chunk in answer.iter_encoded():
            came += [(event.name, time.monotonic() - started_s) for event in parse(chunk.decode())]
        worker.join()
        assert [name for name, _ in came] == ["logs", "logs", "output", "done"]
        assert came[0][1] < 0.75 and 0.75 < came[1][1] < 1.15
        assert came[-1][1] < 2

    def test_a_success_ends_with_its_picture(self, app: Flask, client: FlaskClient, store: JobStore) -> None:
        job_id, path = self.path(client)
        fence = self.claim(store, job_id)
        store.renew(job_id, fence, step=1, log="Using seed: 1\n  5%|#| 1/20\n")
        store.succeed(job_id, fence, new_result())
        logs, output, done = self.read(app, path)
        assert (logs.name, logs.data) == ("logs", "Using seed: 1\n  5%|#| 1/20\n")
        assert (output.name, output.data) == ("output", client.get(f"/v1/predictions/{job_id}").json["output"])
        assert (done.name, done.data) == ("done", "{}")

    def test_a_failure_says_why_before_it_ends(self, app: Flask, client: FlaskClient, store: JobStore) -> None:
        job_id, path = self.path(client)
        store.fail(job_id, self.claim(store, job_id), JobError("render_failed", "it\nbroke\u2028off"))
        error, done = self.read(app, path)
        assert (error.name, json.loads(error.data)) == ("error", {"detail": "it\nbroke\u2028off"})
        assert (done.name, json.loads(done.data)) == ("done", {"reason": "error"})

    def test_a_canceled_prediction_ends_with_that_reason(self, app: Flask, client: FlaskClient, store: JobStore) -> None:
        job_id, path = self.path(client)
        store.cancel(job_id)
        [done] = self.read(app, path)
        assert (done.name, json.loads(done.data)) == ("done", {"reason": "canceled"})

    def test_a_reader_who_comes_back_gets_the_rest(self, app: Flask, client: FlaskClient, store: JobStore) -> None:
        job_id, path = self.path(client)
        fence = self.claim(store, job_id)
        for step in (1, 2, 3):
            store.renew(job_id, fence, step=step, log=f"{step}\n")
        store.succeed(job_id, fence, new_result())
        everything = self.read(app, path)
        assert everything[0].data == "1\n2\n3\n"
        assert [event.data for event in self.read(app, path, after="2-0")] == ["2\n3\n", *[e.data for e in everything[1:]]]
        assert self.read(app, path, after=everything[0].id) == everything[1:]
        assert self.read(app, path, after=everything[1].id) == everything[2:]
        assert self.read(app, path, after="no id of ours") == everything
        over = app.test_client().get(path, headers={"Last-Event-ID": everything[-1].id})
        assert (over.status_code, over.data) == (204, b"")

    def test_of_logs_that_were_cut_the_end_is_sent(self, app: Flask, client: FlaskClient, store: JobStore) -> None:
        job_id, path = self.path(client)
        fence = self.claim(store, job_id)
        for step in range(1, 6):
            store.renew(job_id, fence, step=step, log=f"{step}" * 4999 + "\n")
        store.succeed(job_id, fence, new_result())
        assert self.read(app, path)[0].data.endswith("5" * 4999 + "\n")
        assert self.read(app, path, after="20000-0")[0].data == "5" * 4999 + "\n"

    def test_silence_is_broken_by_comments(self, app: Flask, client: FlaskClient, monkeypatch: MonkeyPatch) -> None:
        assert stream.HEARTBEAT_S < 30
        monkeypatch.setattr(stream, "HEARTBEAT_S", 0.5)
        _, path = self.path(client)
        chunks = app.test_client().get(path, buffered=False).iter_encoded()
        assert next(chunks) == b"retry: 2000\n"
        assert next(chunks) == b": still here\n"
        chunks.close()

    def test_the_address_is_the_permission(self, app: Flask, client: FlaskClient) -> None:
        job_id, path = self.path(client)
        for wrong in (path[:-1] + "~", f"/v1/streams/{job_id}/", f"/v1/streams/unknown/{path.rpartition('/')[2]}"):
            assert app.test_client().get(wrong).status_code == 404
        allowed = app.test_client().options(path, headers={"Origin": "https://shop.example.com"})
        assert allowed.headers["Access-Control-Allow-Origin"] == "*"

    def test_removed_data_is_no_longer_streamed(self, app: Flask, client: FlaskClient, store: JobStore) -> None:
        job_id, path = self.path(client)
        store.cancel(job_id)
        store.remove_data(store.get(job_id))
        assert app.test_client().get(path).status_code == 410
        assert "stream" not in client.get(f"/v1/predictions/{job_id}").json["urls"]

    def test_streams_are_bounded_and_their_places_come_back(self, app: Flask, client: FlaskClient, store: JobStore) -> None:
        job_id, path = self.path(client)
        opened = [app.test_client().get(path, buffered=False) for _ in range(SETTINGS.streams_max)]
        refused = app.test_client().get(path)
        assert (refused.status_code, refused.json["code"]) == (429, "streams_full")
        assert refused.headers["Retry-After"].isdigit()
        for number, answer in enumerate(opened):
            if number % 2:
                next(answer.iter_encoded())
            answer.close()
        store.cancel(job_id)
        assert [event.name for event in self.read(app, path)] == ["done"]
        assert app.test_client().head(path).status_code == 200

    def test_a_stream_does_not_last_for_ever(self, client: FlaskClient, store: JobStore) -> None:
        settings = SETTINGS.model_copy(update={"stream_limit_s": 1.0})
        app = create_app(settings, store=store, enqueue=lambda *_, **__: None, storage=idle_storage())
        _, path = self.path(client)
        started_s = time.monotonic()
        assert self.read(app, path) == []
        assert 0.9 < time.monotonic() - started_s < 3
