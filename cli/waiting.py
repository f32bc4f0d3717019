"""Waiting for a prediction: a bar by its steps, patience with an API that restarts, and Ctrl-C."""

from __future__ import annotations

import time

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cli.client import Api, ApiRefused, ApiUnreachable, prediction_path, read_prediction
from cli.screen import Screen, clean
from shared.errors import GranuleError
from shared.wire import Prediction

POLL_FIRST_S, POLL_LAST_S = 0.2, 2.0
PATIENCE_S = 60.0
UNFINISHED = ("starting", "processing")
PASSING = (429, 502, 503, 504)
SHOWN_CHARACTERS = 48


class WaitedTooLong(GranuleError):
    """The prediction had not ended when the caller's patience had; it goes on."""

    code = "waited_too_long"


def wait(api: Api, made: Prediction, screen: Screen, *, timeout_s: float | None = None) -> Prediction:
    """Return the prediction when it has ended, showing how it gets on meanwhile. Ctrl-C offers to call it off.

    Raises:
        WaitedTooLong: `timeout_s` seconds were not enough.
        ApiUnreachable: the API did not answer for a minute.
        KeyboardInterrupt: as from the keyboard, once the offer was answered.
    """
    try:
        return _watch(api, made, screen, timeout_s)
    except KeyboardInterrupt:
        _offer_cancel(api, made["id"], screen)
        raise


def _watch(api: Api, made: Prediction, screen: Screen, timeout_s: float | None) -> Prediction:
    started_s = time.monotonic()
    poll_s, told = POLL_FIRST_S, ""
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn()
    with Progress(*columns, console=screen.err, transient=True, disable=not screen.err.is_terminal) as bars:
        prompt = clean(str(made["input"].get("prompt", made["id"])))[:SHOWN_CHARACTERS].replace("[", r"\[")
        bar = bars.add_task(prompt, total=None, state="")
        while made["status"] in UNFINISHED:
            state = describe_state(made)
            steps = made["progress"] if made["status"] == "processing" else None
            bars.update(bar, completed=steps["step"] if steps else 0, total=steps["steps"] if steps else None, state=state)
            if not screen.err.is_terminal and made["status"] != told:
                told = made["status"]
                screen.say(f"{made['id']}: {state}")
            if timeout_s is not None and time.monotonic() - started_s > timeout_s:
                raise WaitedTooLong(
                    f"{made['id']} has not ended after {timeout_s:g} s ({state}); it goes on: granule show {made['id']} --wait"
                )
            time.sleep(poll_s)
            poll_s = min(poll_s * 1.2, POLL_LAST_S) if made["status"] == "starting" else POLL_FIRST_S * 2
            made = _read(api, made["id"])
    return made


def describe_state(made: Prediction) -> str:
    """Say in a few words where a prediction that has not ended stands."""
    if made["status"] == "processing":
        return f"step {made['progress']['step']} of {made['progress']['steps']}"
    if made["queue_note"]:
        return "waiting; no worker serves its model"
    parts = ["waiting"]
    if made["queue_position"]:
        parts.append(f"{made['queue_position']} before it")
    if made["eta_s"] is not None:
        parts.append(f"about {made['eta_s']:.0f} s")
    return ", ".join(parts)


def call_off(api: Api, prediction_id: str) -> tuple[Prediction, str]:
    """Call a prediction off, and return it with a sentence on what became of it."""
    made = read_prediction(api.post(f"{prediction_path(prediction_id)}/cancel"))
    if made["status"] in ("succeeded", "failed"):
        return made, f"{prediction_id} had {made['status']} already"
    ending = "is canceled" if made["status"] == "canceled" else "is being called off; it ends with its present step"
    return made, f"{prediction_id} {ending}"


def _read(api: Api, prediction_id: str) -> Prediction:
    """Read the prediction, through a restart of the API or a moment without Redis."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return read_prediction(api.get(prediction_path(prediction_id)))
        except ApiUnreachable:
            if time.monotonic() > deadline_s:
                raise
        except ApiRefused as error:
            if error.status not in PASSING or time.monotonic() > deadline_s:
                raise
        time.sleep(POLL_LAST_S)


def _offer_cancel(api: Api, prediction_id: str, screen: Screen) -> None:
    left = f"{prediction_id} goes on. granule show {prediction_id} --wait follows it, granule cancel {prediction_id} ends it"
    try:
        if not screen.can_ask or not screen.ask(f"\nCall {prediction_id} off?"):
            screen.say(left)
            return
        screen.say(call_off(api, prediction_id)[1])
    except KeyboardInterrupt:
        screen.say(left)
    except (ApiUnreachable, ApiRefused) as error:
        screen.say(f"{prediction_id} could not be called off: {error.detail}")
