"""The demo: one tile ordered over HTTP, as a shop's backend would order it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from shared.errors import GranuleError
from shared.wire import Prediction

PROMPT = "50% red, 30% black, 20% pearl"
TIMEOUT_S = 300.0
POLL_S = 0.2


class DemoFailed(GranuleError):
    """The tile was not rendered; the detail says what the API answered."""

    code = "demo_failed"


class Shop:
    """A customer of the API at `url`. `check` is called while it waits, so that a dead program ends the wait."""

    def __init__(self, url: str, *, check: Callable[[], None]) -> None:
        self._url = url
        self._check = check
        self._session = requests.Session()
        self._session.trust_env = False

    def order(self, model: str, prompt: str, console: Console) -> Prediction:
        """Order a picture and return the finished prediction; a bar on `console` shows the steps meanwhile.

        Raises:
            DemoFailed: the order was refused, failed, was canceled, or took longer than five minutes.
        """
        made: Prediction = self._call("POST", "/v1/predictions", json={"version": model, "input": {"prompt": prompt}})
        deadline_s = time.monotonic() + TIMEOUT_S
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
            bar = bars.add_task(prompt, total=None)
            while made["status"] in ("starting", "processing"):
                if time.monotonic() > deadline_s:
                    raise DemoFailed(f"the tile was not finished after {TIMEOUT_S:.0f} s; its status is {made['status']}")
                self._check()
                time.sleep(POLL_S)
                made = self._call("GET", f"/v1/predictions/{made['id']}")
                bars.update(bar, completed=made["progress"]["step"], total=made["progress"]["steps"])
        if made["status"] != "succeeded":
            raise DemoFailed(f"the job {made['status']}: {made['error']}")
        return made

    def download(self, made: Prediction, file: Path) -> None:
        """Fetch the picture of a finished prediction into `file`. Raises DemoFailed."""
        file.parent.mkdir(parents=True, exist_ok=True)
        output = made["output"]
        if not isinstance(output, str):
            raise DemoFailed(f"one picture was ordered; the output is {output!r}")
        try:
            response = self._session.get(output, timeout=60)
            response.raise_for_status()
        except requests.RequestException as error:
            raise DemoFailed(f"the picture cannot be fetched: {error}") from error
        file.write_bytes(response.content)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = self._session.request(method, self._url + path, timeout=10, **options)
            if not response.ok:
                raise DemoFailed(f"{method} {path} answered {response.status_code}: {response.text[:500]}")
            return response.json()
        except requests.RequestException as error:
            raise DemoFailed(f"{method} {path} got no answer: {error}") from error


def describe(made: Prediction, file: Path) -> str:
    """Where the picture is and what it holds, ordered beside measured."""
    lines = [f"{file}  (seed {made['seed']}, {made['metrics'].get('total_time', 0):.1f} s)"]
    for entry in made.get("composition") or []:
        ordered = f"{entry['ordered']:5.1f} % ordered" if entry["ordered"] else "      not ordered"
        lines.append(f"  {entry['color']:<12} {ordered}  {entry['measured']:5.1f} % measured")
    return "\n".join(lines)
