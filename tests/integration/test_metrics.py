"""What Prometheus finds in a running stack: API processes behind one gunicorn, a guardian with its worker, a courier."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from infra.local.ports import free_block
from shared.settings import REPOSITORY, Settings
from tests.integration.conftest import S3Location
from tests.integration.processes import Processes, wait_until

MODEL = "granule/rubber-tile-mini"
ALERTS = REPOSITORY / "infra" / "prometheus" / "alerts.yml"
ORDERS = 3
START_S = 120.0
"""A machine with much else to do takes its time to start six processes."""


@dataclass(frozen=True)
class Running:
    """Addresses of a stack that has drawn `ORDERS` pictures; each shows its metrics."""

    api: str
    courier: str
    render: str


@pytest.fixture(scope="module")
def stack(redis_server: Any, s3: S3Location, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("metrics")
    api_port, courier_port, render_port = free_block(3)
    settings = s3.settings(Settings(redis_url=redis_server.url, redis_prefix="metrics:", heartbeat_s=0.5, lease_s=5))
    processes = Processes(settings, folder, {"TMPDIR": str(folder)})
    try:
        processes._start(
            "api", *("-m", "gunicorn", "--config", "python:api.serving", "--bind", f"127.0.0.1:{api_port}"),
            "api.server:create_app()",
        )  # fmt: skip
        processes.extra["GRANULE_METRICS_PORT"] = str(courier_port)
        processes.courier()
        processes.extra["GRANULE_METRICS_PORT"] = str(render_port)
        processes.guardian()
        running = Running(*(f"http://127.0.0.1:{port}" for port in (api_port, courier_port, render_port)))
        wait_until(lambda: answers(f"{running.api}/readyz"), timeout_s=START_S)
        for seed in range(ORDERS):
            body = {"version": MODEL, "input": {"prompt": "50% red, 50% black", "seed": seed}}
            httpx.post(f"{running.api}/v1/predictions", json=body, timeout=60).raise_for_status()
        wait_until(lambda: value(scrape(running.api), "granule_jobs_ended_total") == ORDERS, timeout_s=START_S)
        yield running
    finally:
        processes.stop()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).is_success
    except httpx.TransportError:  # a time-out is one
        return False


def scrape(address: str) -> list[Any]:
    text = httpx.get(f"{address}/metrics", timeout=30).raise_for_status().text
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(samples: list[Any], name: str, **labels: str) -> float:
    """The sum of all samples of this name that have these labels."""
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


def test_the_processes_of_one_api_are_counted_together(stack: Running) -> None:
    def served() -> float:
        return value(scrape(stack.api), "granule_http_request_seconds_count", view="models.list_models", status="200")

    before = served()
    for _ in range(20):
        httpx.get(f"{stack.api}/v1/models")  # a connection for each, so that both processes get some
    assert {served() for _ in range(6)} == {before + 20}


def test_a_render_worker_shows_where_jobs_spend_their_time(stack: Running) -> None:
    samples = scrape(stack.render)
    for phase in ("queued", "claimed", "denoise", "publish"):
        assert value(samples, "granule_job_phase_seconds_count", model=MODEL, phase=phase) == ORDERS, phase
    assert 0.1 * ORDERS <= value(samples, "granule_job_phase_seconds_sum", phase="denoise") < 5 * ORDERS
    assert value(samples, "granule_denoise_steps_total", model=MODEL) == 5 * ORDERS
    assert value(samples, "granule_composition_error_ratio_count", model=MODEL) == ORDERS


def test_the_api_shows_the_workers_duty_and_the_courier_its_looks(stack: Running) -> None:
    wait_until(lambda: value(scrape(stack.api), "granule_render_busy_seconds_total", model=MODEL) > 0)
    samples = scrape(stack.api)
    assert 0 < value(samples, "granule_gpu_duty_ratio", model=MODEL) <= 1
    assert value(samples, "granule_workers_ready", model=MODEL) == 1
    assert value(scrape(stack.courier), "granule_sweep_looks_total", look="leases", result="done") > 0


@contextmanager
def prometheus(stack: Running, folder: Path) -> Iterator[str]:
    """Address of a Prometheus that scrapes the stack under the shipped jobs' names, with the shipped rules."""
    port = free_block(1)[0]
    config = yaml.safe_load((ALERTS.parent / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ALERTS)]
    targets = {"granule-api": stack.api, "granule-courier": stack.courier, "granule-render": stack.render}
    assert {job["job_name"] for job in config["scrape_configs"]} == set(targets)
    config["scrape_configs"] = [
        {"job_name": name, "static_configs": [{"targets": [address.removeprefix("http://")]}]}
        for name, address in targets.items()
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/-/ready"), timeout_s=START_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on PATH (Debian: apt install prometheus)")
def test_prometheus_scrapes_everything_and_every_alert_evaluates(stack: Running, tmp_path: Path) -> None:
    def ask(path: str, **query: str) -> Any:
        answer = httpx.get(f"{address}/api/v1/{path}", params=query, timeout=30)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    with prometheus(stack, tmp_path) as address:
        wait_until(lambda: {target["health"] for target in ask("targets")["activeTargets"]} == {"up"})
        wait_until(lambda: all(rule["health"] == "ok" for group in ask("rules")["groups"] for rule in group["rules"]))
        [group] = ask("rules")["groups"]
        shipped = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
        assert [rule["name"] for rule in group["rules"]] == [rule["alert"] for rule in shipped]
        for rule in shipped:
            ask("query", query=rule["expr"])
        # Nothing is wrong with this stack, so no alert may stay, pending ones included.
        wait_until(lambda: not ask("alerts")["alerts"], timeout_s=START_S)
        assert ask("query", query="sum(granule_jobs_ended_total)")["result"][0]["value"][1] == str(ORDERS)


def test_an_api_that_ends_leaves_no_folder_of_counts(stack: Running, tmp_path: Path) -> None:
    port = free_block(1)[0]
    command = ["gunicorn", "--config", "python:api.serving", "--bind", f"127.0.0.1:{port}", "api.server:create_app()"]
    environ = {name: text for name, text in os.environ.items() if not name.startswith("GRANULE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", *command], env=environ | {"TMPDIR": str(tmp_path)}, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), timeout_s=START_S)
    assert list(tmp_path.glob("granule-metrics-*/*.db"))
    process.terminate()
    process.wait(timeout=30)
    assert not list(tmp_path.glob("granule-metrics-*"))
