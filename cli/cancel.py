"""`granule cancel ID...`: call jobs off."""

from __future__ import annotations

import argparse

from cli.client import ApiRefused, add_connection, connect
from cli.main import FAILED, add_json
from cli.screen import Screen
from cli.waiting import call_off

NOT_FOUND = 404


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which jobs are called off."""
    parser.add_argument("ids", metavar="ID", nargs="+")
    add_json(parser)
    add_connection(parser)


def run(arguments: argparse.Namespace, screen: Screen) -> int:
    """Call them off, all of them even if one is not there; the status is then 1. Raises GranuleError."""
    api, missing = connect(arguments), 0
    for prediction_id in arguments.ids:
        try:
            made, ending = call_off(api, prediction_id)
        except ApiRefused as error:
            if error.status != NOT_FOUND:
                raise
            missing += 1
            screen.failure(error.detail)
            continue
        if screen.as_json:
            screen.dump(made)
        else:
            screen.show(ending)
    return FAILED if missing else 0
