"""`granule deliveries [ID]`: webhook messages of a prediction, or those that were given up."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from cli.client import Api, add_connection, connect, prediction_path
from cli.main import add_json
from cli.screen import Screen
from shared.errors import InputInvalid

COLUMNS = ("prediction", "number", "event", "state", "tries", "last try", "receiver")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which messages are meant."""
    parser.add_argument("id", metavar="ID", nargs="?", help="of a prediction; unset: all that was given up (admin tokens)")
    parser.add_argument(
        "--redeliver",
        metavar="NUMBER",
        nargs="?",
        const="all",
        help="send them again: with ID the message of that number, without ID all that were given up",
    )
    add_json(parser)
    add_connection(parser)


def run(arguments: argparse.Namespace, screen: Screen) -> int:
    """List them, or send them again. Raises GranuleError."""
    api = connect(arguments)
    if arguments.redeliver:
        return _redeliver(api, arguments, screen)
    if arguments.id:
        _list(list(api.items(f"{prediction_path(arguments.id)}/deliveries")), screen)
        return 0
    dead = api.get("/v1/dead-letters")
    _list(dead["deliveries"], screen)
    if screen.as_json:
        return 0
    if dead["delivery_count"] > len(dead["deliveries"]):
        screen.say(f"these are the first {len(dead['deliveries'])} of {dead['delivery_count']}")
    if dead["prediction_count"]:
        screen.say(
            f"{dead['prediction_count']} predictions are dead too, such as {dead['predictions'][0]}: see GET /v1/dead-letters"
        )
    return 0


def _redeliver(api: Api, arguments: argparse.Namespace, screen: Screen) -> int:
    if arguments.id is None:
        if arguments.redeliver != "all":
            raise InputInvalid("--redeliver with a number needs the ID of a prediction", field="redeliver")
        sent = api.post("/v1/dead-letters/deliveries/redeliver")
        if screen.as_json:
            screen.dump(sent)
        else:
            screen.show(f"{sent['redelivered']} messages will be sent again")
        return 0
    if arguments.redeliver == "all":
        raise InputInvalid(
            "--redeliver needs the number of the message, as granule deliveries ID lists them", field="redeliver"
        )
    _list([api.post(f"{prediction_path(arguments.id)}/deliveries/{arguments.redeliver}/redeliver")], screen)
    return 0


def _list(deliveries: Sequence[dict[str, Any]], screen: Screen) -> None:
    if screen.as_json:
        for delivery in deliveries:
            screen.dump(delivery)
    elif deliveries:
        screen.table(COLUMNS, [_row(delivery) for delivery in deliveries])
    else:
        screen.say("there are none")


def _row(delivery: dict[str, Any]) -> tuple[str, ...]:
    tries = delivery["tries"]
    last = f"{tries[-1]['tried_at']}: {tries[-1]['note']}" if tries else "not tried yet"
    return (
        *(delivery["prediction"], str(delivery["number"]), delivery["event"], delivery["state"]),
        *(str(delivery["attempts"]), last, delivery["url"]),
    )
