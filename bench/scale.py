"""What a hundred thousand waiting jobs cost: create, place in line, take, end, list and sweep, against a hundred waiting.

One client talks to a real Redis (append-only file, synced once a second) of which a model's line is filled to each depth in
turn, for one tenant. At each depth every call is timed 300 times in turn with the others, so that the line stays as long as it
is: `create` records a job, `view` reads one from the middle of the line with its place and its outlook, `claim` takes the
first, `renew` and `finish` are its worker's, `list` is the newest page of the tenant's predictions and `page` one from the
middle, `sweep` all looks of the sweep that go through Redis.

`ratio` is the deepest line's p99 over that of the shortest. The exit status is 1 if one of them is above 2. Each job's bytes
in Redis and the commands that one job costs from create to finish (scripts count their own) are at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from redis import Redis

from bench.duty import order_of
from bench.machine import describe_machine
from bench.results import Report, Table, percentile, write_report
from bench.servers import running_servers
from shared.job_store import JobStore, connect_store
from shared.jobs import Job, JobSpec, Output, Result
from shared.queue import message_lists
from shared.redis_client import connect
from shared.settings import Settings

DEPTHS = (100, 1_000, 10_000, 100_000)
TIMES = 300
RATIO_MAX = 2.0
TENANT_LISTS = 100
WORKER = "bench"


class Line:
    """A model's line on one Redis, and each call on it as `JobStore` makes it."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._model = settings.model
        self._redis = redis
        self._lists = message_lists(settings.model, prefix=settings.redis_prefix)
        # A message that waits, as one always does in a long line: without any the sweep would send all of them again.
        redis.rpush(self._lists[-1], "a message")
        self.store: JobStore = connect_store(settings, redis)
        self.waiting: list[JobSpec] = []

    def fill(self, depth: int) -> None:
        """Make the line as long as that."""
        while len(self.waiting) < depth:
            self.create()

    def create(self) -> None:
        """Put one more job at the end."""
        spec = order_of(self._model)
        self.store.create(spec, body_hash=spec.id, queue_max_jobs=10**9)
        self.waiting.append(spec)

    def view(self) -> None:
        """Read a job in the middle."""
        place = len(self.waiting) // 2
        position = self.store.view(self.waiting[place].id)[1].queue_position
        assert position == place, f"place {position} in line, not {place}"

    def claim(self) -> Job:
        """Take the first."""
        job = self.store.claim_next(self._model, worker=WORKER, token=self.waiting[0].id)
        assert job is not None and job.id == self.waiting.pop(0).id, "another job than the first was taken"
        return job

    def finish(self, job: Job) -> None:
        """End one."""
        output = Output(f"outputs/{job.id}/1/0.png", job.spec.filename, "image/png", 1_000_000, "0" * 64)
        self.store.succeed(job.id, job.fence, Result([output], 0.5))

    def page(self, at: int | None) -> None:
        """Read a hundred predictions of the tenant, the newest or those before number `at`."""
        assert self.store.list_jobs("bench", before_seq=at, limit=TENANT_LISTS)

    def sweep(self) -> None:
        """Look for everything that the sweep looks for each second."""
        store = self.store
        store.lost(self._model, self._lists)
        store.is_amnesty()
        for look in (store.expired_leases, store.overdue, store.with_leftovers, store.expiring, store.outlived):
            look()

    def commands(self) -> int:
        """How many commands Redis has run, those of scripts included."""
        stats = cast("dict[str, dict[str, Any]]", self._redis.info("commandstats"))
        return sum(int(row["calls"]) for row in stats.values())

    def memory_bytes(self) -> int:
        """What all keys take."""
        return int(self._redis.info("memory")["used_memory"])


def main() -> int:
    """Measure every depth and write the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="Measures what long lines cost.")
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS, help="waiting jobs, rising (default: %(default)s)")
    depths: Sequence[int] = parser.parse_args().depths
    machine = describe_machine()
    with (
        tempfile.TemporaryDirectory(prefix="granule-scale-") as folder,
        running_servers(Path(folder), appendfsync="everysec", s3=False) as settings,
        connect(settings.redis_url, timeout_s=10) as redis,
    ):
        line = Line(settings, redis)
        empty_bytes = line.memory_bytes()
        found = {depth: measure(line, depth) for depth in depths}
        job_bytes = (line.memory_bytes() - empty_bytes) / (depths[-1] + len(depths) * TIMES)
        before = line.commands()
        line.create()
        line.finish(line.claim())
        commands = line.commands() - before
    ratios = report(found, machine, job_bytes, commands)
    return int(max(ratios.values()) > RATIO_MAX)


def measure(line: Line, depth: int, times: int = TIMES) -> dict[str, list[float]]:
    """Return how many seconds each call took, `times` times each, with `depth` jobs waiting."""
    line.fill(depth)
    took: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        began_s = time.perf_counter()
        answer = call()
        took.setdefault(name, []).append(time.perf_counter() - began_s)
        return answer

    middle = line.store.get(line.waiting[depth // 2].id).seq
    for _ in range(times):
        timed("create", line.create)
        timed("view", line.view)
        job: Job = timed("claim", line.claim)
        timed("renew", lambda job=job: line.store.renew(job.id, job.fence, step=1, log="1/20\n"))
        timed("finish", lambda job=job: line.finish(job))
        timed("list", lambda: line.page(None))
        timed("page", lambda: line.page(middle))
        timed("sweep", line.sweep)
    return took


def report(
    found: dict[int, dict[str, list[float]]], machine: dict[str, object], job_bytes: float, commands: int
) -> dict[str, float]:
    """Write the tables; return each call's ratio."""
    depths = list(found)
    p99 = {depth: {name: 1000 * (percentile(times, 99) or 0) for name, times in found[depth].items()} for depth in depths}
    p50 = {depth: {name: 1000 * (percentile(times, 50) or 0) for name, times in found[depth].items()} for depth in depths}
    ratios = {name: p99[depths[-1]][name] / p99[depths[0]][name] for name in p99[depths[0]]}
    columns = ("", *(f"{what}, {depth:,} waiting" for depth in depths for what in ("p50", "p99")), "ratio")
    rows = [
        (name, *(figures[depth][name] for depth in depths for figures in (p50, p99)), ratio) for name, ratio in ratios.items()
    ]
    note = f"A job takes {job_bytes:,.0f} bytes of Redis's memory, and {commands} commands from create to finish."
    data = {"p50_ms": p50, "p99_ms": p99, "ratio_p99": ratios, "bytes_per_job": job_bytes, "commands_per_job": commands}
    write_report(Report("scale", machine, data, [Table("Milliseconds a call", columns, rows)], notes=[note]))
    return ratios


if __name__ == "__main__":
    sys.exit(main())
