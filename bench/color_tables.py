"""The tables of docs/colours.md, from the figures of `bench.colors`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.color_texture import SEAM_MAX
from bench.machine import sentence
from worker.tile_score import REFERENCE

Found = Mapping[str, Any]

WORDS = {
    "painted": "painted tiles",
    "cracks": "cracked ground",
    "lattice": "lattice",
    "plain_color": "plain colour",
    "room": "boxes and discs, as a kitchen",
    "clouds": "smooth blobs of any size",
    "terrazzo": "terrazzo",
}


def table(head: Sequence[str], rows: Sequence[Sequence[object]], found: Found, unit: str) -> str:
    """Return a Markdown table, and below it how many were measured, and where."""
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
    return f"{text}\n\n{found['count']} {unit}; weights {found['model_version']}; {sentence(found['machine'])}.\n"


def guided_table(found: Found) -> str:
    """Guided beside plain."""
    guided, plain = found["guided"], found["plain"]
    rows = [
        ("color error, mean", "error_mean"),
        ("color error, 95th percentile", "error_p95"),
        ("color error, worst", "error_max"),
        ("CIEDE2000 from the swatch, mean over the colours found", "ciede2000_mean"),
        ("tile score, mean", "tile_score_mean"),
        ("seconds a picture, median", "seconds_median"),
    ]
    head = ["", f"guided, strength {found['strength']}", "plain"]
    return table(head, [(title, guided[key], plain[key]) for title, key in rows], found, "mixes")


def strength_table(found: Found) -> str:
    """Colours and look against strength."""
    head = ["strength", "steps", "color error, mean", "worst", "dB from the model's own look", "tile score"]
    keys = ("strength", "steps", "error_mean", "error_max", "look_db", "tile_score_mean")
    return table(head, [[row[key] for key in keys] for row in found["rows"]], found, "mixes at each strength")


def seams_table(found: Found) -> str:
    """Seam scores."""
    kinds = {
        "`seamless`, guided": found["guided"],
        "guided, cut in the middle": found["guided"]["middle"],
        "`seamless`, plain": found["plain"],
        "plain, cut in the middle": found["plain"]["middle"],
        "guided without `seamless`": found["not seamless"],
    }
    rows = [(title, *(scores[key] for key in ("mean", "min", "max", "over"))) for title, scores in kinds.items()]
    head = ["", "seam score, mean", "least", "most", f"above {SEAM_MAX}"]
    return table(head, rows, found, "tiles of each kind, the larger of both directions")


def texture_table(found: Found) -> str:
    """Tile scores of tiles and of what is none, and the figures behind them."""
    rows = [(WORDS[name], score["mean"], score["min"], score["max"]) for name, score in found["scores"].items()]
    scores = table(["", "tile score, mean", "least", "most"], rows, found, "pictures of each kind")
    figures = [(name, *(found["figures"][name][key] for key in ("mean", "std")), *REFERENCE[name]) for name in REFERENCE]
    head = ["figure", "painted: mean", "standard deviation", "reference: mean", "spread"]
    return f"{scores}\n{table(head, figures, found, 'painted tiles')}"


TABLES: dict[str, Callable[[Found], str]] = {
    "guided": guided_table,
    "strength": strength_table,
    "seams": seams_table,
    "texture": texture_table,
}
