"""What an order costs besides the model: Granule beside Cog, LitServe, BentoML, Ray Serve, Celery and rq.

Every system serves the same stand-in model, alone on the machine, with one worker that draws one picture at a time. Its
client sends the same order over loopback and ends with the PNG's bytes in hand. The systems take turns, `--rounds` times, so
that a slow minute of the machine is not one system's.

Systems that cannot be installed are left out, and it is said why. Takes about five minutes a round on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.machine import describe_machine
from bench.peers import SYSTEMS, Running, Site, System, environment_for
from bench.results import Chart, Report, Table, percentile, write_report
from bench.systems.model import SEEDS_PER_MS
from infra.local.supervisor import ProgramFailed, Supervisor
from shared.settings import REPOSITORY

SLEEPS_MS = (0, 500)
WARM_UP_ORDERS = 5
BURST_CLIENTS = 8
DRIVE_TIMEOUT_S = 300


@dataclass
class Found:
    """What one system needed, in ms, over all rounds; keys are the model's time in ms.

    `start` is from the order to the model's first instruction, `known` from the model's end to the client's knowing,
    `total` from the order to the bytes in hand without the model's own time, `accepted` and `poll` the answers to an order
    and to a question about it, `drained` the orders per second that eight clients got done with a model of 0 ms.
    """

    start: dict[int, list[float]] = field(default_factory=dict)
    known: dict[int, list[float]] = field(default_factory=dict)
    total: dict[int, list[float]] = field(default_factory=dict)
    accepted: list[float] = field(default_factory=list)
    poll: list[float] = field(default_factory=list)
    drained: list[float] = field(default_factory=list)


def main() -> None:
    """Measure every system and write the report."""
    parser = argparse.ArgumentParser(prog="./granule bench overhead")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--orders", type=int, default=100, help="orders of 0 ms a round; of 500 ms a fifth as many")
    parser.add_argument("--systems", nargs="+", choices=[system.name for system in SYSTEMS], help="default: all")
    arguments = parser.parse_args()
    machine = describe_machine()
    wanted = [system for system in SYSTEMS if not arguments.systems or system.name in arguments.systems]
    installed = [(system, python) for system in wanted if (python := environment_for(system)) is not None]
    found = {system.name: Found() for system, _ in installed}
    for number in range(arguments.rounds):
        for system, python in installed:
            sys.stderr.write(f"round {number + 1} of {arguments.rounds}: {system.name}\n")
            try:
                measure(system, python, arguments.orders, found[system.name])
            except (ProgramFailed, subprocess.SubprocessError) as error:
                sys.stderr.write(f"{system.name} failed in this round: {error}\n")
    write_report(make_report([system for system, _ in installed], found, machine, arguments.orders, arguments.rounds))


def measure(system: System, python: str, orders: int, found: Found) -> None:
    """Start a system in a folder of its own, place all kinds of orders, stop it, and add what was found to `found`.

    Raises:
        ProgramFailed: it does not start.
        SubprocessError: its client failed.
    """
    with tempfile.TemporaryDirectory(prefix="granule-bench-") as name:
        site = Site(Path(name), python, Path(name) / "marks")
        running = system.plan(site)
        with Supervisor(running.programs, folder=site.folder / "run", write_line=lambda program, line: None) as supervisor:
            supervisor.start()
            driver = Driver(system, site, running)
            driver.drive(0, WARM_UP_ORDERS)
            for sleep_ms in SLEEPS_MS:
                _add_latencies(driver, sleep_ms, orders if sleep_ms == 0 else max(1, orders // 5), found)
            if system.client == "granule_client":
                _add_answers(driver, orders, found)
            placed = driver.drive(0, orders, clients=BURST_CLIENTS)
            span_ns = max(order["fetched_ns"] for order in placed) - min(order["sent_ns"] for order in placed)
            found.drained.append(1e9 * orders / span_ns)


class Driver:
    """Places orders with one running system, each with a seed of its own."""

    def __init__(self, system: System, site: Site, running: Running) -> None:
        self._python = site.python if system.client_is_native else sys.executable
        self._command = ("-m", "bench.systems.drive", system.client, running.address)
        self._environ = site.environ(BENCH_REDIS_URL=running.address)
        self._marks = site.marks
        self._placed = 0

    def drive(self, sleep_ms: int, count: int, *, clients: int = 1, poll: bool = False) -> list[dict[str, int]]:
        """Place `count` orders and return the moments of each, with the model's own as `began_ns` and `ended_ns`.

        Raises:
            SubprocessError: an order failed, or the system hangs.
        """
        first_seed = sleep_ms * SEEDS_PER_MS + self._placed
        self._placed += count
        options = [f"--count={count}", f"--clients={clients}", f"--first-seed={first_seed}", *(["--poll"] if poll else [])]
        done = subprocess.run(
            [self._python, *self._command, *options],
            env=self._environ,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            timeout=DRIVE_TIMEOUT_S,
            check=True,
        )
        marks = {}
        for line in self._marks.read_text(encoding="ascii").splitlines():
            seed, began_ns, ended_ns = map(int, line.split())
            marks[seed] = {"began_ns": began_ns, "ended_ns": ended_ns}
        return [order | marks[order["seed"]] for order in json.loads(done.stdout)]


def _add_latencies(driver: Driver, sleep_ms: int, count: int, found: Found) -> None:
    placed = driver.drive(sleep_ms, count)
    found.start.setdefault(sleep_ms, []).extend((order["began_ns"] - order["sent_ns"]) / 1e6 for order in placed)
    found.known.setdefault(sleep_ms, []).extend((order["known_ns"] - order["ended_ns"]) / 1e6 for order in placed)
    found.total.setdefault(sleep_ms, []).extend(
        (order["fetched_ns"] - order["sent_ns"] - order["ended_ns"] + order["began_ns"]) / 1e6 for order in placed
    )
    found.accepted.extend(
        (order["accepted_ns"] - order["sent_ns"]) / 1e6 for order in placed if order["accepted_ns"] is not None and not sleep_ms
    )


def _add_answers(driver: Driver, count: int, found: Found) -> None:
    """Orders that are asked about until they are done, for the time of the answers."""
    placed = driver.drive(50, max(1, count // 2), poll=True)
    found.accepted.extend((order["accepted_ns"] - order["sent_ns"]) / 1e6 for order in placed)
    found.poll.extend(poll_ns / 1e6 for order in placed for poll_ns in order["polls_ns"])  # type: ignore[attr-defined]


def make_report(
    systems: Sequence[System], found: dict[str, Found], machine: dict[str, object], orders: int, rounds: int
) -> Report:
    """Turn what was found into tables and a chart. Systems that failed in every round are not in it."""
    shown = [system for system in systems if found[system.name].total]
    columns = ["", *(f"{what} {mark}" for what in ("start", "done", "all") for mark in ("p50", "p99")), "orders/s"]
    tables = [
        Table(
            f"Model of {sleep_ms} ms; milliseconds besides it, {orders if not sleep_ms else orders // 5} orders x {rounds}",
            columns if not sleep_ms else columns[:-1],
            [_row(system.name, found[system.name], sleep_ms) for system in shown],
        )
        for sleep_ms in SLEEPS_MS
    ]
    answers = [[name, *_both(values.accepted), *_both(values.poll)] for name, values in found.items() if values.accepted]
    tables.append(Table("Answers in milliseconds", ["", "order p50", "order p99", "poll p50", "poll p99"], answers))
    kept = [[system.name, system.queue, system.status, system.storage, system.wire] for system in shown]
    tables.append(Table("What becomes of an order", ["", "waits in", "status", "picture in the end", "asked over"], kept))
    series: dict[str, list[float | None]] = {
        "start p50": [percentile(found[system.name].start[0], 50) for system in shown],
        "all p50": [percentile(found[system.name].total[0], 50) for system in shown],
    }
    data = {name: vars(values) for name, values in found.items()}
    chart = Chart("Milliseconds besides a model of 0 ms", [system.name for system in shown], series)
    return Report("overhead", machine, {"systems": _rounded(data)}, tables, chart, NOTES)


NOTES = (
    "*start*: order sent to the model's first instruction. *done*: the model's end to the client's knowing of it. *all*: order "
    "sent to the picture's bytes in hand, less the model's own time. *orders/s*: eight clients, a model of 0 ms, one worker.",
    "Granule's *done* holds what no other system here does: the colours are measured, the picture is written to S3 and the "
    "outcome to a Redis that syncs every write to disk. Celery's and rq's Redis is set up in the same way.",
)


def _row(name: str, values: Found, sleep_ms: int) -> list[object]:
    latencies = (values.start[sleep_ms], values.known[sleep_ms], values.total[sleep_ms])
    cells: list[object] = [name, *(cell for latency in latencies for cell in _both(latency))]
    return [*cells, percentile(values.drained, 50)] if not sleep_ms else cells


def _both(values: list[float]) -> tuple[float | None, float | None]:
    return percentile(values, 50), percentile(values, 99)


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 2) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
