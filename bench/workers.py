"""How many jobs a second 1, 2, 4, ... 64 workers on one Redis draw, against as many times the rate of one that never waits.

Each worker is the real one from claim to outcome (`worker.runner.run_jobs`, with the spool and its publishers) on a connection
of its own to one real Redis (append-only file, synced once a second). Its model sleeps, and all workers are threads of this one
process. Left out are what each worker has on a machine of its own: the model, the measuring and encoding of a picture of full
size (here 64 x 64), the upload (the storage takes the bytes and forgets them), Celery's messages, and the guardian's renewals
of leases, one in five seconds. So the figure is that of the record and its Redis, which all workers share.

The clock stops when the last picture is drawn. Publishing goes on beside drawing as long as there is more to draw; only in a
benchmark do all workers publish their last picture at once, and in one process.

`of ideal` is the rate over that of workers that do nothing but sleep. `cores` is how many processors this process and Redis
kept busy: Python's lock gives the workers' own code one at most, which real workers on machines of their own do not share. The
exit status is 1 if a row misses 0.95.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from redis import Redis

from bench.machine import describe_machine
from bench.results import Report, Table, write_report
from bench.servers import running_servers
from bench.sleeper import Sleeper
from bench.tiles import order_of, painted_tile
from shared.job_store import connect_store
from shared.manifest import Manifest, load_catalog
from shared.previews import connect_previews
from shared.redis_client import connect
from shared.settings import Settings
from shared.storage import Storage
from worker.duty import DutyMeter
from worker.pulse import Pulse
from worker.runner import run_jobs
from worker.spool import Spool
from worker.station import Station

COUNTS = (1, 2, 4, 8, 16, 32, 64)
PIXELS = np.ascontiguousarray(painted_tile()[:64, :64])
GOAL = 0.95


@dataclass(frozen=True, slots=True)
class Rate:
    """What so many workers came to. Commands and bytes are Redis's own counts for one job, from its order to its outcome."""

    workers: int
    jobs_per_s: float
    of_ideal: float
    cores: float
    commands_per_job: float
    commands_per_s: float
    sent_bytes_per_job: float
    memory_bytes_per_job: float


class Forgetful(Storage):
    """Takes every object and keeps none."""

    def __init__(self) -> None:
        """Without a server."""

    def put(self, key: str, data: bytes, *, content_type: str, metadata: Mapping[str, str]) -> None:
        """Take the bytes."""


def main() -> int:
    """Measure every number of workers and write the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description="Measures what workers on one Redis draw.")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="workers (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=4, help="jobs for each worker (default: %(default)s)")
    parser.add_argument("--render-ms", type=float, default=2500, help="how long a picture takes (default: %(default)s)")
    arguments = parser.parse_args()
    machine = describe_machine()
    with (
        tempfile.TemporaryDirectory(prefix="granule-workers-") as folder,
        running_servers(Path(folder), appendfsync="everysec", s3=False) as settings,
        open(os.devnull, "wb") as nowhere,
    ):
        pulse = Pulse(nowhere.fileno())
        rates = [measure(settings, pulse, count, arguments.jobs, arguments.render_ms / 1000) for count in arguments.counts]
    report(rates, machine, f"{arguments.jobs} jobs of {arguments.render_ms:g} ms for each worker")
    return int(min(rate.of_ideal for rate in rates) < GOAL)


def measure(settings: Settings, pulse: Pulse, count: int, jobs_each: int, render_s: float) -> Rate:
    """Let `count` workers draw `jobs_each` jobs each, which all wait when they begin."""
    with connect(settings.redis_url, timeout_s=10) as redis:
        before = counts(redis)
        store = connect_store(settings, redis)
        job_ids = []
        for _ in range(count * jobs_each):
            spec = order_of(settings.model)
            job_ids.append(store.create(spec, body_hash=spec.id, queue_max_jobs=10**9).job_id)
        manifest = load_catalog(settings.models_dir).by_slug(settings.model)
        stations = [station(f"worker-{place}", settings, manifest, pulse, render_s) for place in range(count)]
        drawn_s: list[float] = []
        threads = [threading.Thread(target=work, args=(*one, drawn_s)) for one in zip(job_ids, stations, strict=False)]
        began_s, spent_s = time.monotonic(), processor_s(redis)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s, whole_s, spent_s = max(drawn_s) - began_s, time.monotonic() - began_s, processor_s(redis) - spent_s
        assert all(store.get(job_id).result for job_id in job_ids), "not every job has a picture"
        commands, sent_bytes, memory_bytes = (now - then for now, then in zip(counts(redis), before, strict=True))
    jobs = len(job_ids)
    rate = jobs / took_s
    return Rate(
        workers=count,
        jobs_per_s=rate,
        of_ideal=rate / (count / render_s),
        cores=spent_s / whole_s,
        commands_per_job=commands / jobs,
        commands_per_s=commands / whole_s,
        sent_bytes_per_job=sent_bytes / jobs,
        memory_bytes_per_job=memory_bytes / jobs,
    )


def station(name: str, settings: Settings, manifest: Manifest, pulse: Pulse, render_s: float) -> Station:
    """Build what one worker works with, as `worker.assembly` does."""
    redis = connect(settings.redis_url, timeout_s=10)
    return Station(
        name=name,
        manifest=manifest,
        store=connect_store(settings, redis),
        previews=connect_previews(settings, redis),
        storage=Forgetful(),
        pipeline=Sleeper(PIXELS, render_s),
        pulse=pulse,
        spool=Spool(settings.spool_places),
        duty=DutyMeter(),
        publish_limit_s=settings.publish_limit_s,
        is_stopping=lambda: False,
    )


def work(job_id: str, station: Station, drawn_s: list[float]) -> None:
    """Draw until no job waits, note when that was, and bring the last picture out."""
    run_jobs(job_id, station)
    drawn_s.append(time.monotonic())
    station.spool.wait_until_empty()


def counts(redis: Redis) -> tuple[int, int, int]:
    """Redis's own counts: commands run, those of scripts included; bytes received and sent; bytes of memory."""
    stats = cast("dict[str, dict[str, Any]]", redis.info("commandstats"))
    whole = redis.info()
    sent_bytes = int(whole["total_net_input_bytes"]) + int(whole["total_net_output_bytes"])
    return sum(int(row["calls"]) for row in stats.values()), sent_bytes, int(whole["used_memory"])


def processor_s(redis: Redis) -> float:
    """Processor time of this process and of Redis so far."""
    used = redis.info("cpu")
    return time.process_time() + float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def report(rates: Sequence[Rate], machine: Mapping[str, object], conditions: str) -> None:
    """Write the table."""
    columns = ("workers", "jobs/s", "of ideal", "cores", "commands/job", "commands/s", "bytes sent/job", "bytes kept/job")
    table = Table(conditions, columns, [astuple(rate) for rate in rates])
    write_report(Report("workers", machine, {"conditions": conditions, "rows": [asdict(rate) for rate in rates]}, [table]))


if __name__ == "__main__":
    sys.exit(main())
