"""What a command shows: results on standard output, everything said about them on standard error."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What could move the cursor, colour or reorder the line: prompts and logs come from strangers."""

KEPT_WHOLE = 3
"""So many columns of a table are never broken: what names a thing is copied from there."""

STATUS_STYLES = {
    "succeeded": "green",
    "failed": "red",
    "canceled": "yellow",
    "processing": "cyan",
    "delivered": "green",
    "dead": "red",
    "ok": "green",
    "note": "cyan",
    "warning": "yellow",
    "wrong": "bold red",
}


class Screen:
    """Writes for a person, or with `as_json` for a program.

    Colour follows rich: none where the stream is no terminal, or with NO_COLOR set.
    """

    def __init__(self, *, as_json: bool = False, out: Console | None = None, err: Console | None = None) -> None:
        self.as_json = as_json
        self.out = out or Console(highlight=False)
        self.err = err or Console(stderr=True, highlight=False)

    @property
    def can_ask(self) -> bool:
        """Whether a person is there to answer."""
        return self.err.is_terminal and sys.stdin.isatty()

    def say(self, text: str, style: str = "") -> None:
        """Tell how things stand, on standard error."""
        self.err.print(Text(clean(text), style=style), soft_wrap=True)

    def failure(self, text: str) -> None:
        """Tell why the command failed."""
        self.say(f"granule: {text}", style="bold red")

    def ask(self, question: str) -> bool:
        """Ask a yes-or-no question on standard error; anything but yes is no."""
        self.err.print(Text(f"{question} [y/N] "), end="")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def show(self, text: str) -> None:
        """Write a result for a person."""
        self.out.print(Text(clean(text)), soft_wrap=True)

    def dump(self, value: Any) -> None:
        """Write one result as JSON: a single line, or indented on a terminal."""
        indent = 2 if self.out.is_terminal else None
        self.out.file.write(json.dumps(value, ensure_ascii=True, indent=indent) + "\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write rows under headings: aligned on a terminal, with tabs between the cells elsewhere, where nothing is cut."""
        if not self.out.is_terminal:
            for cells in (columns, *rows):
                self.out.file.write("\t".join(clean(cell).replace("\t", " ").replace("\n", " ") for cell in cells) + "\n")
            return
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for index, column in enumerate(columns):
            table.add_column(column, no_wrap=index < KEPT_WHOLE, overflow="fold")
        for row in rows:
            table.add_row(*(Text(clean(cell), style=STATUS_STYLES.get(cell, "")) for cell in row))
        self.out.print(table)


def clean(text: str) -> str:
    """Make text from outside harmless to a terminal: control characters show as a replacement character."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
