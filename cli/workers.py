"""`granule workers`: who draws now, and what. With `--gpus` it runs workers here, as `granule work` does."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from cli import work
from cli.client import Api, ApiRefused, add_connection, connect
from cli.main import add_json
from cli.screen import Screen

FORBIDDEN = 403
COLUMNS = ("worker", "model", "device", "state", "job", "last sign of life")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say that there is nothing to say, but for `--gpus`."""
    work.add_gpus(parser, help="run workers on this machine instead: the same as granule work --gpus")
    add_json(parser)
    add_connection(parser)


def run(arguments: argparse.Namespace, screen: Screen) -> int:
    """List them, or run them. Raises GranuleError."""
    if arguments.gpus:
        return work.run(arguments, screen)
    api = connect(arguments)
    try:
        overview = api.get("/v1/overview")
    except ApiRefused as error:
        if error.status != FORBIDDEN:
            raise
        _show_counts(api, screen)
        return 0
    _show(overview["workers"], overview["queues"], screen)
    return 0


def _show(workers: Sequence[dict[str, Any]], queues: Sequence[dict[str, Any]], screen: Screen) -> None:
    if screen.as_json:
        for worker in workers:
            screen.dump(worker)
        return
    if workers:
        screen.table(COLUMNS, [_row(worker) for worker in workers])
    waiting = {model: sum(line["waiting"] for line in queues if line["model"] == model) for model in _models(queues)}
    served = {worker["model"] for worker in workers}
    if not workers:
        screen.say("no worker is alive")
    for model, count in waiting.items():
        if count:
            screen.say(f"{count} jobs wait for {model}" + ("" if model in served else ", which no worker serves"))


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
    state = (worker["name"], worker["model"], worker["device"], worker["state"])
    return (*state, worker["prediction"] or "", f"{worker['silence_s']:.1f} s ago")
