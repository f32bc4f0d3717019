"""`granule jobs`: the caller's jobs, newest first."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from cli.client import Api, add_connection, connect, read_prediction
from cli.main import add_json
from cli.screen import Screen
from shared.errors import InputInvalid
from shared.wire import Prediction

STATUSES = ("starting", "processing", "succeeded", "failed", "canceled")
SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which jobs are listed."""
    parser.add_argument("-n", "--limit", type=int, default=SHOWN, metavar="N", help="how many at most (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="as many as there are")
    parser.add_argument("--status", choices=STATUSES, action="append", help="only these; may be given more than once")
    parser.add_argument("--since", metavar="TIME", help="only those created at this moment or later, as 2026-01-31T12:00:00Z")
    add_json(parser)
    add_connection(parser)


def run(arguments: argparse.Namespace, screen: Screen) -> int:
    """List them. Raises GranuleError."""
    if arguments.limit < 1:
        raise InputInvalid("--limit must be 1 or more", field="limit")
    found = _jobs(connect(arguments), arguments)
    wanted = found if arguments.all else islice(found, arguments.limit)
    if screen.as_json:
        for made in wanted:
            screen.dump(made)
        return 0
    rows = [_row(made) for made in wanted]
    if not rows:
        screen.say("there are none" if not (arguments.status or arguments.since) else "there are none such")
        return 0
    screen.table(("id", "status", "created", "took", "seed", "prompt"), rows)
    # With a filter, to look for one more could mean to read the whole list.
    if not arguments.all and not arguments.status and next(found, None) is not None:
        screen.say(f"these are {arguments.limit}; --all lists more, --limit another number")
    return 0


def _jobs(api: Api, arguments: argparse.Namespace) -> Iterator[Prediction]:
    query = {"created_after": arguments.since} if arguments.since else {}
    for item in api.items("/v1/predictions", query):
        made = read_prediction(item)
        if not arguments.status or made["status"] in arguments.status:
            yield made


def _row(made: Prediction) -> tuple[str, ...]:
    created = datetime.fromisoformat(made["created_at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    took = f"{made['metrics']['total_time']:.1f} s" if "total_time" in made["metrics"] else _progress(made)
    return made["id"], made["status"], created, took, str(made["seed"]), str(made["input"].get("prompt", ""))


def _progress(made: Prediction) -> str:
    return f"{made['progress']['fraction']:.0%}" if made["status"] == "processing" else ""
