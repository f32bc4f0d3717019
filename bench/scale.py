"""What a hundred thousand waiting jobs cost: create, place in line, take, end, list and sweep, against a hundred waiting.

One client talks to a real Redis (append-only file, synced once a second) of which a model's line is filled to each depth in
turn, for one tenant. At each depth every call is timed 300 times in turn with the others, so that the line stays as long as it
is: `create` records a job, `view` reads one from the middle of the line with its place and its outlook, `claim` takes the
first, `renew` and `finish` are its worker's, `list` is the newest page of the tenant's predictions and `page` one from the
middle, `sweep` all looks of the sweep that go through Redis.

`ratio` is the deepest line's p99 over that of the shortest. The exit status is 1 if one of them is above 2. Each job's bytes
in Redis and the commands that one job costs from create to finish (scripts count their own; steps, of which this one makes
none, cost more: `bench.workers` has them) are at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.line import Line, measure
from bench.machine import describe_machine
from bench.results import Report, Table, percentile, write_report
from bench.servers import running_servers
from shared.redis_client import connect

DEPTHS = (100, 1_000, 10_000, 100_000)
TIMES = 300
RATIO_MAX = 2.0


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
        found = {depth: measure(line, depth, TIMES) for depth in depths}
        job_bytes = (line.memory_bytes() - empty_bytes) / (depths[-1] + len(depths) * TIMES)
        before = line.commands()
        line.create()
        line.finish(line.claim())
        commands = line.commands() - before
    ratios = report(found, machine, job_bytes, commands)
    return int(max(ratios.values()) > RATIO_MAX)


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
    note = f"A job takes {job_bytes:,.0f} bytes of Redis's memory and {commands} commands from create to finish, steps aside."
    data = {"p50_ms": p50, "p99_ms": p99, "ratio_p99": ratios, "bytes_per_job": job_bytes, "commands_per_job": commands}
    write_report(Report("scale", machine, data, [Table("Milliseconds a call", columns, rows)], notes=[note]))
    return ratios


if __name__ == "__main__":
    sys.exit(main())
