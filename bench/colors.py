"""Colours: ordered against drawn, guided against plain, seams, texture; every table and picture of docs/colours.md.

`./granule colours` runs all sections with modest counts; name some to run only those. Each section puts its figures into
bench/results/colors.json, and what that file holds is written into docs/colours.md, between the marks of each table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.color_mixes import measure_guidance, measure_strengths
from bench.color_pictures import draw_floor, draw_legend_example, draw_mixes, draw_palette, draw_strengths
from bench.color_studio import Studio
from bench.color_tables import TABLES
from bench.color_texture import measure_seams, measure_texture
from bench.machine import describe_machine
from shared.manifest import load_manifest
from shared.settings import REPOSITORY

RESULTS = REPOSITORY / "bench" / "results" / "colors.json"
PAGE = REPOSITORY / "docs" / "colours.md"
MARK, END = "<!-- {name} -->\n", "<!-- end -->"

Section = Callable[[Studio, int], Mapping[str, Any]]

SECTIONS: dict[str, tuple[Section, int]] = {
    "guided": (measure_guidance, 20),
    "strength": (measure_strengths, 4),
    "seams": (measure_seams, 10),
    "texture": (measure_texture, 10),
}
"""Name of each section of figures, what measures it, and its count by default."""

PICTURES: dict[str, Callable[[Studio, Path], None]] = {
    "palette": draw_palette,
    "mixes": draw_mixes,
    "strengths": draw_strengths,
    "floor": draw_floor,
    "legend": draw_legend_example,
}


def main() -> None:
    """Read the command line, measure and draw what it names, and write the page's tables anew."""
    parser = argparse.ArgumentParser(prog="./granule colours", description=__doc__.partition("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join([*SECTIONS, *PICTURES])}, tables (all)")
    parser.add_argument("--count", type=int, help="mixes, tiles or pictures of each section, instead of its modest default")
    parser.add_argument("--manifest", type=Path, default=REPOSITORY / "models" / "rubber-tile-mini.toml")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    arguments = parser.parse_args()
    wanted = arguments.sections or [*SECTIONS, *PICTURES]
    unknown = [name for name in wanted if name not in (*SECTIONS, *PICTURES, "tables")]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join([*SECTIONS, *PICTURES])} and tables")
    studio = Studio(load_manifest(arguments.manifest), arguments.threads)
    for name in wanted:
        if name in SECTIONS:
            measure, count = SECTIONS[name]
            found = measure(studio, arguments.count or count)
            keep(name, {**found, "machine": describe_machine(), "model_version": studio.manifest.version[:12]})
        elif name in PICTURES:
            PICTURES[name](studio, REPOSITORY / "docs" / "pictures")
        sys.stdout.write(f"{name} done\n")
        sys.stdout.flush()
    sys.stdout.write(write_tables())


def keep(name: str, found: Mapping[str, Any]) -> None:
    """Put a section's figures into the file of results, beside those of the other sections."""
    results = read_results() | {name: found}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def read_results() -> dict[str, Any]:
    """Return the figures of all sections measured so far."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else {}


def write_tables() -> str:
    """Write the tables of all sections measured so far into the page, and return them as one text."""
    page, results = PAGE.read_text(encoding="utf-8"), read_results()
    tables = {name: TABLES[name](found) for name, found in results.items() if name in TABLES}
    for name, table in tables.items():
        before, mark, rest = page.partition(MARK.format(name=name))
        page = before + mark + table + rest[rest.index(END) :]
    PAGE.write_text(page, encoding="utf-8")
    return "\n".join(tables.values())


if __name__ == "__main__":
    main()
