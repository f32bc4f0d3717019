"""How long the API and a render worker take from their first instruction to ready, and where the time goes.

Processor time stands beside the time on the clock: on a machine with other work it is the one that can be compared. Every start
is a new process with a warm file cache. A worker's parts are those it logs at every start.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import psutil
import requests

from bench.machine import describe_machine
from bench.results import Report, Table, write_report
from infra.local.ports import free_block
from shared.settings import REPOSITORY

READY_TIMEOUT_S = 300.0
POLL_S = 0.01

# Run in a new process: the clock begins with its first instruction.
WORKER = """
import json, time
began_s = time.perf_counter()
from shared.manifest import load_catalog
from shared.settings import load_settings
from worker.tasks import import_pipeline
worker_s = time.perf_counter()
pipeline = import_pipeline()
imported_s = time.perf_counter()
from worker.loading import load_model
settings = load_settings()
manifest = load_catalog(settings.models_dir).by_slug(settings.model)
model = load_model(manifest, settings)
loaded_s = time.perf_counter()
pipeline.warm_up(pipeline.Pipeline(model, manifest), manifest)
ready_s = time.perf_counter()
parts = {"queue and storage": worker_s - began_s, "torch and diffusers": imported_s - worker_s, **model.laps_s}
print(json.dumps({"parts": parts | {"warm-up": ready_s - loaded_s}, "all": ready_s - began_s, "cpu": time.process_time()}))
"""


def main() -> None:
    """Start both a few times and write the report."""
    parser = argparse.ArgumentParser(prog="./granule bench start")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    machine = describe_machine()
    apis = [start_api() for _ in range(arguments.turns)]
    workers = [start_worker() for _ in range(arguments.turns)]
    rows = [
        ["API, to its first answer", *_least_and_median([wall_s for wall_s, _ in apis]), min(cpu_s for _, cpu_s in apis)],
        [
            "render worker, to ready",
            *_least_and_median([worker["all"] for worker in workers]),
            min(worker["cpu"] for worker in workers),
        ],
    ]
    parts = [[part, *_least_and_median([worker["parts"][part] for worker in workers])] for part in workers[0]["parts"]]
    tables = [
        Table(f"Seconds, {arguments.turns} starts", ["", "least", "p50", "processor, least"], rows),
        Table("The worker's parts, seconds", ["", "least", "p50"], parts),
    ]
    write_report(Report("start", machine, {"api": apis, "worker": workers}, tables))


def start_api() -> tuple[float, float]:
    """Start the API as it is served, with one process; return seconds to its first answer, and its processor seconds."""
    address = f"127.0.0.1:{free_block(1)[0]}"
    command = [sys.executable, "-m", "gunicorn", "--config", "python:api.serving", "--workers", "1", "--bind", address]
    started_s = time.monotonic()
    with subprocess.Popen(
        [*command, "--log-level", "error", "api.server:create_app()"], cwd=REPOSITORY, env=_environment()
    ) as process:
        try:
            while not _answers(f"http://{address}/healthz"):
                if process.poll() is not None or time.monotonic() - started_s > READY_TIMEOUT_S:
                    raise RuntimeError("the API did not start")
                time.sleep(POLL_S)
            ready_s = time.monotonic() - started_s
            own = psutil.Process(process.pid)
            cpu_s = sum(sum(one.cpu_times()[:2]) for one in (own, *own.children()))
        finally:
            process.terminate()
    return ready_s, cpu_s


def start_worker() -> dict[str, Any]:
    """Load the model in a new process as a render worker does; return seconds of all, of its parts, and of the processor."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER], cwd=REPOSITORY, env=_environment(), stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).ok
    except requests.RequestException:
        return False


def _least_and_median(values: list[float]) -> tuple[float, float]:
    return min(values), statistics.median(values)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "GRANULE_LOG_FORMAT"} | {"NO_PROXY": "127.0.0.1"}


if __name__ == "__main__":
    main()
