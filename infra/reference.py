"""Writes the parts of the documentation that are made from the code: `python -m infra.reference`."""

from __future__ import annotations

import textwrap
import types
import typing
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from shared.metrics import describe
from shared.palette import load_palette
from shared.settings import PREFIX, REPOSITORY, Settings, variables

ALERTS = REPOSITORY / "infra" / "prometheus" / "alerts.yml"
CONFIGURATION = REPOSITORY / "docs" / "configuration.md"
OPERATIONS = REPOSITORY / "docs" / "operations.md"
ALERTS_K8S = REPOSITORY / "infra" / "k8s" / "components" / "monitoring" / "rules.yaml"
PROMPTS = REPOSITORY / "docs" / "prompts.md"
METRICS_START, METRICS_END = "<!-- metrics -->\n", "<!-- /metrics -->\n"
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


def operations(text: str) -> str:
    """Return the text of docs/operations.md with the table of metrics as the code has it now."""
    before, _, rest = text.partition(METRICS_START)
    _, _, after = rest.partition(METRICS_END)
    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    rows += [f"| `{line.name}` | {line.kind} | {', '.join(line.labels)} | {line.help} |" for line in describe()]
    return before + METRICS_START + "\n".join(rows) + "\n" + METRICS_END + after


def kubernetes_rules(alerts: str) -> str:
    """Return the alert rules in the form of the Prometheus operator; `alerts` is the text of the file for Prometheus."""
    _, _, groups = alerts.partition("groups:\n")
    head = "# Made from infra/prometheus/alerts.yml by `python -m infra.reference`.\n"
    head += "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: granule\nspec:\n  groups:\n"
    return head + textwrap.indent(groups, "  ")


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
    OPERATIONS.write_text(operations(OPERATIONS.read_text(encoding="utf-8")), encoding="utf-8")
    ALERTS_K8S.write_text(kubernetes_rules(ALERTS.read_text(encoding="utf-8")), encoding="utf-8")
    PROMPTS.write_text(prompts(PROMPTS.read_text(encoding="utf-8")), encoding="utf-8")
