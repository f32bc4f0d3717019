"""Places orders with one system and prints the moments of each as JSON: `python -m bench.systems.drive MODULE ADDRESS ...`.

A program of its own because each system's client needs its own libraries. Standard library alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from bench.systems.timing import Busy, Order

BUSY_PAUSE_S = 0.002


def main() -> None:
    """Place `--count` orders from `--clients` threads; seeds count up from `--first-seed`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("address")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--first-seed", type=int, required=True)
    parser.add_argument("--poll", action="store_true")
    arguments = parser.parse_args()
    make_client = importlib.import_module(f"bench.systems.{arguments.module}").Client
    found: list[dict[str, Any]] = []
    seeds = iter(range(arguments.first_seed, arguments.first_seed + arguments.count))
    take = threading.Lock()

    def place_orders() -> None:
        client = make_client(arguments.address)
        while True:
            with take:
                seed = next(seeds, None)
            if seed is None:
                return
            if arguments.poll:
                order, polls_ns = client.order_and_poll(seed)
                found.append(asdict(order) | {"polls_ns": polls_ns})
            else:
                found.append(asdict(_order(client, seed)))

    threads = [threading.Thread(target=place_orders) for _ in range(arguments.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump(found, sys.stdout)


def _order(client: Any, seed: int) -> Order:
    """Order, and where the system is busy again and again; the wait counts."""
    sent_ns = time.monotonic_ns()
    while True:
        try:
            order: Order = client.order(seed)
        except Busy:
            time.sleep(BUSY_PAUSE_S)
            continue
        return Order(seed, sent_ns, order.accepted_ns, order.known_ns, order.fetched_ns)


if __name__ == "__main__":
    main()
