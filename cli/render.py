"""`granule render "50% red, 30% black, 20% pearl" -o tile.png`: order a picture, wait for it, save it."""

from __future__ import annotations

import argparse
import json
import uuid
from pathlib import Path
from typing import Any

from cli.client import Api, add_connection, connect, read_prediction
from cli.main import FAILED, add_json
from cli.picture import FORMATS, STANDARD_OUTPUT, check_target, save
from cli.screen import Screen
from cli.show import describe
from cli.waiting import describe_state, wait
from shared.errors import InputInvalid
from shared.settings import load_settings
from shared.wire import Prediction

DEFAULT_TARGET = "./"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be ordered."""
    parser.add_argument("prompt", metavar="PROMPT", help='the mix: "50%% red, 30%% black, 20%% pearl"')
    parser.add_argument(
        *("-o", "--output"),
        metavar="FILE",
        default=DEFAULT_TARGET,
        help="file, folder, or - for standard output; unset: this folder, under the picture's own name",
    )
    parser.add_argument("--seed", type=int, help="the same seed and prompt give the same picture")
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what to keep out; unset: the model's own")
    parser.add_argument("--model", metavar="MODEL", help="owner/name or a version id; unset: GRANULE_MODEL")
    parser.add_argument("--format", choices=("png", "jpg", "webp"), help="unset: by the file's ending, else png")
    parser.add_argument("--quality", type=int, metavar="N", help="of jpg and webp, 1 to 100")
    parser.add_argument(
        *("-i", "--input"),
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any further input of the model; the value is read as JSON where it is that, else as text",
    )
    parser.add_argument("--priority", choices=("high", "normal", "low"), help="the lane it waits in")
    parser.add_argument("--cancel-after", metavar="TIME", help="call it off when it has not ended by then: 90, 5m, 1h")
    parser.add_argument("--fresh", action="store_true", help="draw it even if the same picture is stored")
    parser.add_argument("--key", metavar="KEY", help="Idempotency-Key: the same one twice is one order")
    parser.add_argument("--no-wait", action="store_true", help="order it, print its id, and end")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="how long to wait; the job goes on after that")
    add_json(parser)
    add_connection(parser)


def run(arguments: argparse.Namespace, screen: Screen) -> int:
    """Order, wait, save. Raises GranuleError."""
    if not arguments.no_wait:
        check_target(arguments.output)
    api = connect(arguments)
    try:
        made = _order(api, arguments)
    except KeyboardInterrupt:
        screen.say("interrupted before the API answered; if the order was placed, granule jobs lists it")
        raise
    for warning in made["warnings"]:
        screen.say(f"warning: {warning}", style="yellow")
    if arguments.no_wait:
        _show_ordered(made, screen)
        return 0
    made = wait(api, made, screen, timeout_s=arguments.timeout)
    if made["status"] != "succeeded":
        if screen.as_json:
            screen.dump(made)
        screen.failure(f"{made['id']} {_ending(made)}")
        return FAILED
    places = save(api, made, arguments.output)
    if arguments.output == STANDARD_OUTPUT:
        return 0
    if screen.as_json:
        screen.dump({**made, "files": places})
    else:
        screen.show("\n".join(places))
        screen.show(describe(made))
    return 0


def order_input(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the `input` of the order. Raises InputInvalid for a further input that is no NAME=VALUE."""
    wanted: dict[str, Any] = {"prompt": arguments.prompt}
    wanted |= dict(_further(text) for text in arguments.input)
    ending = FORMATS.get(Path(arguments.output).suffix.lower())
    given = {
        "seed": arguments.seed,
        "negative_prompt": arguments.negative_prompt,
        "output_format": arguments.format or ending,
        "output_quality": arguments.quality,
    }
    return wanted | {name: value for name, value in given.items() if value is not None}


def _order(api: Api, arguments: argparse.Namespace) -> Prediction:
    headers = {"Idempotency-Key": arguments.key or f"cli-{uuid.uuid4()}"}
    if arguments.priority:
        headers["X-Priority"] = arguments.priority
    if arguments.cancel_after:
        headers["Cancel-After"] = arguments.cancel_after
    if arguments.fresh:
        headers["Cache-Control"] = "no-cache"
    body = {"version": arguments.model or load_settings().model, "input": order_input(arguments)}
    return read_prediction(api.post("/v1/predictions", body, headers))


def _further(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise InputInvalid(f"-i {text}: write NAME=VALUE", field="input")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _show_ordered(made: Prediction, screen: Screen) -> None:
    if screen.as_json:
        screen.dump(made)
        return
    screen.show(made["id"])
    if made["status"] in ("starting", "processing"):
        screen.say(f"{describe_state(made)}; granule show {made['id']} --wait follows it")


def _ending(made: Prediction) -> str:
    return f"failed: {made['error']} ({made['error_code']})" if made["status"] == "failed" else f"was {made['status']}"
