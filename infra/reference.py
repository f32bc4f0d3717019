"""Writes the parts of the documentation that are made from the code: `python -m infra.reference`."""

from __future__ import annotations

import types
import typing
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from shared.palette import load_palette
from shared.settings import PREFIX, REPOSITORY, Settings, variables

CONFIGURATION = REPOSITORY / "docs" / "configuration.md"
PROMPTS = REPOSITORY / "docs" / "prompts.md"
PALETTE_START, PALETTE_END = "<!-- palette -->\n", "<!-- /palette -->\n"

HEADER = """\
# Configuration

Every setting is an environment variable. All processes read the same ones, once, when they start; a value that cannot work,
or a variable with the prefix `GRANULE_` that is not in this table, stops the process with a sentence that names it. The table
is made from [`shared/settings.py`](../shared/settings.py) by `python -m infra.reference`.

| variable | default | meaning |
|---|---|---|
"""


def configuration() -> str:
    """Return the text of docs/configuration.md as the code has it now."""
    return HEADER + "".join(_row(name, info) for name, info in Settings.model_fields.items())


def prompts(text: str) -> str:
    """Return the text of docs/prompts.md with the table of colours as the palette has it now."""
    before, _, rest = text.partition(PALETTE_START)
    _, _, after = rest.partition(PALETTE_END)
    rows = ["| code | caption | Russian | also | swatch |", "|---|---|---|---|---|"]
    for color in load_palette().colors:
        swatch = "#" + bytes(color.srgb).hex().upper()
        rows.append(f"| `{color.code}` | {color.name} | {color.name_ru} | {', '.join(color.aliases)} | `{swatch}` |")
    return before + PALETTE_START + "\n".join(rows) + "\n" + PALETTE_END + after


def _row(field: str, info: FieldInfo) -> str:
    names = [name for name, of in variables().items() if of == field]
    plain = [f"`{name}`" for name in names if not name.startswith(PREFIX)]
    shown = ", ".join([f"`{name}`" for name in names if name.startswith(PREFIX)] + plain)
    meaning = " ".join((info.description or "").split())
    bounds = "; ".join(filter(None, [_choices(info), _bounds(info)]))
    return f"| {shown} | {_default(info)} | {meaning}{f' ({bounds})' if bounds else ''} |\n"


def _default(info: FieldInfo) -> str:
    default = info.default
    if default is None or default == () or default is PydanticUndefined:
        return "unset"
    if isinstance(default, Path) and default.is_relative_to(REPOSITORY):
        default = default.relative_to(REPOSITORY)
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _choices(info: FieldInfo) -> str:
    kinds = typing.get_args(info.annotation) if typing.get_origin(info.annotation) is types.UnionType else (info.annotation,)
    literals = [value for kind in kinds if typing.get_origin(kind) is typing.Literal for value in typing.get_args(kind)]
    return "one of " + ", ".join(f"`{value}`" for value in literals) if literals else ""


def _bounds(info: FieldInfo) -> str:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    limits = [(word, getattr(rule, name, None)) for rule in info.metadata for name, word in words.items()]
    return ", ".join(f"{word} {limit:g}" for word, limit in limits if limit is not None)


if __name__ == "__main__":
    CONFIGURATION.write_text(configuration(), encoding="utf-8")
    PROMPTS.write_text(prompts(PROMPTS.read_text(encoding="utf-8")), encoding="utf-8")
