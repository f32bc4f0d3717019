"""What the person in front of the local stack sees: one line for each line of output, led by the program's name."""

from __future__ import annotations

import threading

from rich.console import Console
from rich.text import Text

STYLES = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta")
NAME_WIDTH = 7


class Terminal:
    """Writes to standard error; safe to call from several threads.

    Colour follows rich: none where standard error is no terminal, or with NO_COLOR set.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._lock = threading.Lock()
        self._styles: dict[str, str] = {}

    def write(self, name: str, line: str) -> None:
        """Write one line of a program's output."""
        with self._lock:
            style = self._styles.setdefault(name, STYLES[len(self._styles) % len(STYLES)])
            prefix = Text(f"{name:<{NAME_WIDTH}} | ", style=style)
            self.console.print(prefix + Text.from_ansi(line), soft_wrap=True)

    def failure(self, detail: str, tail: tuple[str, ...] = ()) -> None:
        """Write why it ends, with the last lines of the program that is to blame."""
        with self._lock:
            for line in tail:
                self.console.print(Text("    ") + Text.from_ansi(line), soft_wrap=True)
            self.console.print(Text(f"granule: {detail}", style="bold red"), soft_wrap=True)
