"""What a benchmark found, written three times: JSON for programs, a Markdown table for people, a chart for a glance."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pygal
from pygal.style import CleanStyle

from bench.machine import sentence

FOLDER = Path(__file__).resolve().parent / "results"
WIDTH_PX, BAR_PX, FRAME_PX = 760, 26, 120


@dataclass(frozen=True)
class Table:
    """Rows under column names. Numbers are shown with three digits that count; None is a dash."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def markdown(self) -> str:
        """The table in Markdown, its title above it."""
        lines = [self.columns, ["---"] * len(self.columns), *([_cell(value) for value in row] for row in self.rows)]
        return f"{self.title}\n\n" + "".join("| " + " | ".join(line) + " |\n" for line in lines)


@dataclass(frozen=True)
class Chart:
    """Horizontal bars: for each name in `series` one bar beside each of `labels`; None leaves a gap."""

    title: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    logarithmic: bool = False

    def svg(self) -> bytes:
        """The picture, without scripts."""
        bars = len(self.labels) * len(self.series)
        plot = pygal.HorizontalBar(
            js=(), style=CleanStyle, width=WIDTH_PX, height=FRAME_PX + BAR_PX * bars, explicit_size=True,
            print_values=True, logarithmic=self.logarithmic, title=self.title, legend_at_bottom=True,
        )  # fmt: skip
        # Horizontal bars are stacked from below; read from above, the first shall be first.
        plot.x_labels = list(reversed(self.labels))
        for name, values in self.series.items():
            plot.add(name, list(reversed(values)))
        drawing = plot.render_tree()
        for parent in list(drawing.iter()):
            for script in parent.findall("script"):
                parent.remove(script)
        return ElementTree.tostring(drawing) + b"\n"


@dataclass(frozen=True)
class Report:
    """All that a benchmark found on `machine`, as `describe_machine` gave it before the run.

    `data` is what the tables were made of, ready for JSON; `notes` are sentences about it.
    """

    name: str
    machine: Mapping[str, object]
    data: Mapping[str, object]
    tables: Sequence[Table]
    chart: Chart | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def write_report(report: Report, folder: Path = FOLDER) -> None:
    """Write `NAME.json`, `NAME.md` and, where there is a chart, `NAME.svg` into `folder`, and the tables to standard output."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
    record = {"bench": report.name, "taken": taken, "machine": report.machine, **report.data}
    (folder / f"{report.name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    parts = [f"# {report.name}", f"{sentence(report.machine)}. Taken {taken} by `./granule bench {report.name}`."]
    parts += [table.markdown().rstrip() for table in report.tables]
    if report.chart is not None:
        (folder / f"{report.name}.svg").write_bytes(report.chart.svg())
        parts.append(f"![{report.chart.title}]({report.name}.svg)")
    parts += report.notes
    text = "\n\n".join(parts) + "\n"
    (folder / f"{report.name}.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value that `percent` of the values do not exceed (nearest rank); None of no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else None


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
