"""`granule workers`: who draws now, and what; drain and resume one. With `--gpus` it runs workers here, as `granule work`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from cli import work
from cli.client import Api, ApiRefused, add_connection, connect
from cli.main import add_json
from cli.screen import Screen
from shared.errors import InputInvalid

FORBIDDEN = 403
COLUMNS = ("worker", "model", "device", "state", "job", "duty", "memory free", "last sign of life")
POLL_S = 1.0
GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be done with them."""
    parser.add_argument(
        "action",
        nargs="?",
        choices=("drain", "resume"),
        help="drain: the worker ends what it holds and takes no more until it is resumed; unset: list all",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the worker to drain or resume")
    parser.add_argument("--wait", action="store_true", help="with drain: until it holds nothing and its GPU is free")
    work.add_gpus(parser, help="run workers on this machine instead: the same as granule work --gpus")
    add_json(parser)
    add_connection(parser)


def run(arguments: argparse.Namespace, screen: Screen) -> int:
    """List them, or run them. Raises GranuleError."""
    if arguments.gpus:
        return work.run(arguments, screen)
    api = connect(arguments)
    if arguments.action:
        return _tell(api, arguments, screen)
    try:
        overview = api.get("/v1/overview")
    except ApiRefused as error:
        if error.status != FORBIDDEN:
            raise
        _show_counts(api, screen)
        return 0
    _show(overview["workers"], overview["queues"], screen)
    return 0


def _tell(api: Api, arguments: argparse.Namespace, screen: Screen) -> int:
    """Drain or resume a worker. Raises InputInvalid without its name."""
    if not arguments.name:
        raise InputInvalid(f"{arguments.action} needs the NAME of a worker, as granule workers lists them", field="name")
    worker = api.post(f"/v1/workers/{quote(arguments.name, safe='')}/{arguments.action}")
    while arguments.wait and worker["state"] == "draining":
        time.sleep(POLL_S)
        found = [one for one in api.get("/v1/overview")["workers"] if one["name"] == worker["name"]]
        # Between its process and its rest it may not show itself for a moment.
        worker = found[0] if found else worker
    _list([worker], screen)
    return 0


def _show(workers: Sequence[dict[str, Any]], queues: Sequence[dict[str, Any]], screen: Screen) -> None:
    _list(workers, screen)
    if screen.as_json:
        return
    waiting = {model: sum(line["waiting"] for line in queues if line["model"] == model) for model in _models(queues)}
    served = {worker["model"] for worker in workers if worker["state"] in ("idle", "busy")}
    if not workers:
        screen.say("no worker is alive")
    for model, count in waiting.items():
        if count:
            screen.say(f"{count} jobs wait for {model}" + ("" if model in served else ", which no worker serves"))


def _list(workers: Sequence[dict[str, Any]], screen: Screen) -> None:
    if screen.as_json:
        for worker in workers:
            screen.dump(worker)
    elif workers:
        screen.table(COLUMNS, [_row(worker) for worker in workers])


def _show_counts(api: Api, screen: Screen) -> None:
    """What everybody may see: how many workers each model has."""
    counts = api.probe("/readyz")["workers"]
    if screen.as_json:
        screen.dump(counts)
        return
    screen.table(("model", "workers"), [(model, str(count)) for model, count in counts.items()])
    screen.say("their names and jobs are for tokens with the scope admin")


def _models(queues: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({line["model"] for line in queues})


def _row(worker: dict[str, Any]) -> tuple[str, ...]:
    state = (worker["name"], worker["model"], worker["device"], worker["state"], worker["prediction"] or "")
    duty = "" if worker["duty"] is None else f"{worker['duty']:.0%}"
    return (*state, duty, _free(worker["memory"]), f"{worker['silence_s']:.1f} s ago")


def _free(memory: dict[str, int] | None) -> str:
    return "" if memory is None else f"{memory['free_bytes'] / GIB:.1f} of {memory['total_bytes'] / GIB:.0f} GiB"
