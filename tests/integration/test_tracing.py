"""One order, one trace: API, render worker and courier as real processes, and a collector that decodes what they send."""

from __future__ import annotations

import base64
import json
import secrets
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from pydantic import SecretStr

from infra.local.ports import free_block
from infra.local.redis_server import RedisServer
from shared.settings import Settings
from tests.faults.receiver import Receiver
from tests.integration.collector import Collector, Seen, collecting
from tests.integration.conftest import S3Location
from tests.integration.processes import Processes, wait_until

ORDER = "POST /v1/predictions"
pytestmark = pytest.mark.timeout(600)

MODEL = "granule/rubber-tile-mini"
START_S = 240.0
SERVER, CLIENT, CONSUMER = 2, 3, 5
SPANS = {"queued", "attempt", "claimed", "denoise", "publish", "measure", "upload", "finish", "webhook"}


@dataclass
class Running:
    """A stack whose processes send their spans to `collector`."""

    api: str
    processes: Processes
    collector: Collector
    hook: Receiver

    def order(self, seed: int, **headers: str) -> str:
        """Have a job drawn and its receiver told of it. Returns its id."""
        body = {
            "version": MODEL,
            "input": {"prompt": "50% red, 50% black", "seed": seed},
            "webhook": self.hook.url,
            "webhook_events_filter": ["completed"],
        }
        answer = httpx.post(f"{self.api}/v1/predictions", json=body, headers=headers, timeout=60).raise_for_status()
        job_id = str(answer.json()["id"])
        wait_until(lambda: self.hook.about(job_id), timeout_s=START_S)
        assert [told.status for told in self.hook.about(job_id)] == ["succeeded"]
        return job_id

    def whole_trace(self, trace_id: str) -> dict[str, Seen]:
        """The first span of each name in an order's trace; the picture and its small version are uploaded, all else is once."""
        wait_until(lambda: set(self.collector.trace(trace_id)) >= {ORDER, *SPANS}, timeout_s=START_S)
        found = self.collector.trace(trace_id)
        assert {name: len(spans) for name, spans in found.items()} == dict.fromkeys({ORDER, *SPANS}, 1) | {"upload": 2}
        return {name: spans[0] for name, spans in found.items()}


@dataclass(frozen=True)
class Caller:
    """A caller who traces too: the span that it sends its order from."""

    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def headers(self) -> dict[str, str]:
        traceparent = f"00-{self.trace_id}-{self.span_id}-01"
        return {"traceparent": traceparent, "tracestate": "shop=secret", "baggage": "customer=4711"}


@pytest.fixture(scope="module")
def stack(redis_server: RedisServer, s3: S3Location, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = s3.settings(
        Settings(
            redis_url=redis_server.url,
            redis_prefix="tracing:",
            heartbeat_s=0.5,
            lease_s=5,
            webhook_secret=SecretStr("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()),
            webhook_allowed_hosts=("127.0.0.1",),
        )
    )
    folder, hook, port = tmp_path_factory.mktemp("tracing"), Receiver(), free_block(1)[0]
    with collecting() as collector:
        variables = {
            "TMPDIR": str(folder),
            "GRANULE_LOG_FORMAT": "json",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20of-the-house",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        processes = Processes(settings, folder, variables)
        try:
            processes._start(
                "api", *("-m", "gunicorn", "--config", "python:api.serving", "--workers", "1", "--bind", f"127.0.0.1:{port}"),
                "api.server:create_app()",
            )  # fmt: skip
            processes.courier()
            processes.guardian()
            running = Running(f"http://127.0.0.1:{port}", processes, collector, hook)
            wait_until(lambda: answers(f"{running.api}/readyz"), timeout_s=START_S)
            yield running
        finally:
            processes.stop()
            hook.down()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).is_success
    except httpx.TransportError:
        return False


def test_an_order_is_one_trace_from_the_request_to_the_webhook(stack: Running) -> None:
    caller = Caller()
    job_id = stack.order(1, **caller.headers)
    trace = stack.whole_trace(caller.trace_id)
    parents = {
        **dict.fromkeys(("queued", "attempt", "webhook"), ORDER),
        **dict.fromkeys(("claimed", "denoise", "publish"), "attempt"),
        **dict.fromkeys(("measure", "upload", "finish"), "publish"),
    }
    assert {name: trace[name].parent_id for name in parents} == {name: trace[of].span_id for name, of in parents.items()}
    posted, attempt, denoise, publish = (trace[name] for name in (ORDER, "attempt", "denoise", "publish"))
    assert posted.parent_id == caller.span_id
    services = [span.service for span in (posted, attempt, trace["webhook"])]
    assert services == ["granule-api", "granule-worker", "granule-courier"]
    assert [span.kind for span in (posted, attempt, trace["webhook"])] == [SERVER, CONSUMER, CLIENT]
    assert posted.attributes["http.response.status_code"] == 201
    assert {posted.attributes["granule.job_id"], attempt.attributes["granule.job_id"]} == {job_id}
    assert denoise.events == ("step",) * 5
    assert attempt.start_ns <= denoise.start_ns <= denoise.end_ns <= publish.start_ns <= publish.end_ns <= attempt.end_ns
    assert not any(span.failed for span in trace.values())


def test_nothing_of_what_was_ordered_is_in_it(stack: Running) -> None:
    caller = Caller()
    stack.order(2, **caller.headers)
    words = json.dumps([[span.name, span.attributes] for span in stack.whole_trace(caller.trace_id).values()])
    assert not [word for word in ("50%", "black", "secret", "4711", "local") if word in words]
    assert {headers["authorization"] for headers in stack.collector.headers} == {"Bearer of-the-house"}


def test_the_receiver_can_go_on_with_it_and_learns_nothing_else(stack: Running) -> None:
    caller = Caller()
    job_id = stack.order(3, **caller.headers)
    [headers] = [headers for headers in stack.hook.headers_got if job_id in headers["webhook-id"]]
    tried = stack.whole_trace(caller.trace_id)["webhook"]
    assert headers["traceparent"] == f"00-{tried.trace_id}-{tried.span_id}-01"
    assert not {"tracestate", "baggage"} & set(headers)


def test_log_lines_name_the_trace_that_an_order_began(stack: Running) -> None:
    job_id = stack.order(4)
    [log] = stack.processes.folder.glob("guardian-*.log")
    lines = [json.loads(line) for line in log.read_text().splitlines() if job_id in line]
    named = {line["message"]: (line.get("trace_id", ""), line.get("span_id")) for line in lines}
    claimed, done = named[f"job {job_id} claimed, fence 1"], named[f"job {job_id}: done"]
    trace = stack.whole_trace(claimed[0])
    assert trace[ORDER].parent_id == ""
    assert claimed == (trace["attempt"].trace_id, trace["attempt"].span_id)
    assert done == (trace["publish"].trace_id, trace["publish"].span_id)


def test_a_collector_that_hangs_holds_neither_jobs_nor_the_end_of_a_process(stack: Running) -> None:
    """The last one: it stops the stack."""
    stack.collector.answers.clear()
    stack.collector.asked.clear()
    for seed in range(5, 8):
        stack.order(seed)
    wait_until(stack.collector.asked.is_set)
    for process in stack.processes.started:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(timeout=60) for process in stack.processes.started] == [0, 0, 0]
    assert not stack.collector.answers.is_set()
