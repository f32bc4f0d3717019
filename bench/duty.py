"""How idle the GPU is while jobs wait: Granule with and without its publisher, beside a plain Celery task.

A model that sleeps 500 ms stands in for the GPU; all else is real: a painted tile of 1024 x 1024 is measured, encoded as PNG
and uploaded to a real S3 server, and the record is on a real Redis that writes every change to disk. Sixty jobs wait when
the one worker starts. Three workers in turn, on the same servers:

    plain         a Celery task that draws, encodes and uploads, and keeps no record at all
    sequential    Granule with GRANULE_SPOOL_PLACES=0: each picture is published before the next job is claimed
    publisher     Granule as it is shipped

`duty` is the time spent drawing over the time from the first picture's begin to the last one's end; `of sleep` counts
only the naps that were asked for as drawing; `gap` is from one picture's end to the next one's begin. `reported` is what
the worker itself says in its registry entry. The exit status is 1 if the duty of the publisher misses 0.98.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from bench.machine import describe_machine
from bench.results import Report, Table, percentile, write_report
from bench.servers import environment, running_servers
from bench.tiles import order_of
from shared.job_store import JobStore, connect_store
from shared.jobs import Lane
from shared.queue import enqueue_render, make_celery
from shared.redis_client import connect
from shared.settings import REPOSITORY, Settings
from shared.worker_registry import connect_workers
from worker.guardian import worker_command

APP = "bench.sleeping"
GOAL = 0.98
READY_S, JOB_S = 60.0, 10.0


@dataclass(frozen=True, slots=True)
class Duty:
    """One worker's figures; `reported` is None for a worker that keeps no count."""

    worker: str
    duty: float
    of_sleep: float
    gap_p50_ms: float | None
    gap_p99_ms: float | None
    reported: float | None


def main() -> int:
    """Measure the three workers; return 1 if the publisher's duty misses the goal."""
    parser = argparse.ArgumentParser(prog="python -m bench.duty", description="Measures how idle the GPU is while jobs wait.")
    parser.add_argument("--jobs", type=int, default=60, help="how many wait (default: %(default)s)")
    parser.add_argument("--render-ms", type=float, default=500, help="how long the model sleeps (default: %(default)s)")
    parser.add_argument("--appendfsync", choices=("always", "everysec", "no"), default="always", help="Redis's own setting")
    arguments = parser.parse_args()
    render_s, machine = arguments.render_ms / 1000, describe_machine()
    with (
        tempfile.TemporaryDirectory(prefix="granule-duty-") as folder,
        running_servers(Path(folder), appendfsync=arguments.appendfsync) as settings,
    ):
        rows = [measure(worker, settings, Path(folder), arguments.jobs, render_s) for worker in WORKERS]
    title = f"{arguments.jobs} waiting jobs, {arguments.render_ms:g} ms each, appendfsync {arguments.appendfsync}"
    columns = ("worker", "duty", "of sleep", "gap p50, ms", "gap p99, ms", "reported")
    table = Table(title, columns, [astuple(row) for row in rows])
    write_report(Report("duty", machine, {"conditions": title, "rows": [asdict(row) for row in rows]}, [table]))
    return int(rows[-1].duty < GOAL)


def measure(worker: str, settings: Settings, folder: Path, jobs: int, render_s: float) -> Duty:
    """Let one worker work off `jobs` waiting jobs, each of which sleeps `render_s` seconds."""
    changes, is_plain = WORKERS[worker]
    settings = settings.model_copy(update={**changes, "redis_prefix": f"{worker}:"})
    settings.model_fields_set.update(changes, {"redis_prefix"})
    log = folder / f"{worker}.times"
    store = connect_store(settings, connect(settings.redis_url, timeout_s=5))
    order(store, settings, jobs, recorded=not is_plain)
    extra = {"BENCH_LOG": str(log), "BENCH_RENDER_S": str(render_s)} | ({"BENCH_PLAIN": "1"} if is_plain else {})
    command = worker_command(settings, APP) if is_plain else [sys.executable, "-m", "worker.guardian", "--app", APP]
    with _process(command, environment(settings, **extra), folder / f"{worker}.log"):
        times = _times(log, jobs, READY_S + jobs * JOB_S)
        reported = None if is_plain else _reported(settings)
    return summarise(worker, times, render_s, reported)


def order(store: JobStore, settings: Settings, jobs: int, *, recorded: bool) -> None:
    """Put jobs in line, with a record each or as bare messages."""
    celery = make_celery(settings)
    for _ in range(jobs):
        spec = order_of(settings.model)
        if recorded:
            store.create(spec, body_hash=spec.id, queue_max_jobs=jobs + 1)
        enqueue_render(celery, spec.id, model=settings.model, lane=Lane.NORMAL)
    celery.close()


def summarise(worker: str, times: list[tuple[float, float]], render_s: float, reported: float | None) -> Duty:
    """Reckon the figures from when each picture's drawing began and ended, in seconds."""
    gaps_ms = [1000 * (begin - end) for (_, end), (begin, _) in zip(times, times[1:], strict=False)]
    whole_s = times[-1][1] - times[0][0]
    return Duty(
        worker=worker,
        duty=sum(end - begin for begin, end in times) / whole_s,
        of_sleep=len(times) * render_s / whole_s,
        gap_p50_ms=percentile(gaps_ms, 50),
        gap_p99_ms=percentile(gaps_ms, 99),
        reported=reported,
    )


WORKERS: dict[str, tuple[dict[str, int], bool]] = {
    "plain": ({}, True),
    "sequential": ({"spool_places": 0}, False),
    "publisher": ({}, False),
}
"""Each worker's settings, and whether it is the plain Celery task."""


@contextmanager
def _process(command: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output, cwd=REPOSITORY)
    try:
        yield
    except TimeoutError:
        sys.stderr.write(log.read_text()[-3000:])
        raise
    finally:
        process.terminate()
        process.wait(timeout=60)


def _times(log: Path, jobs: int, patience_s: float) -> list[tuple[float, float]]:
    """Wait until `jobs` pictures are drawn; return when each began and ended."""
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        lines = log.read_text().splitlines() if log.exists() else []
        if len(lines) >= jobs:
            return [(float(begin), float(end)) for begin, end in (line.split() for line in lines)]
        time.sleep(0.5)
    raise TimeoutError(f"not all of {jobs} pictures were drawn within {patience_s:.0f} s")


def _reported(settings: Settings) -> float | None:
    """What the worker's registry entry says after its next heartbeat."""
    time.sleep(settings.heartbeat_s + 1)
    [info] = connect_workers(settings, connect(settings.redis_url, timeout_s=5)).alive()
    return info.duty


if __name__ == "__main__":
    sys.exit(main())
