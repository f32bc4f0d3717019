"""Alert rules and dashboard ask for metrics that exist, by labels that they have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from shared.metrics import Described, describe
from shared.settings import REPOSITORY

INFRA = REPOSITORY / "infra"
ALERTS = INFRA / "prometheus" / "alerts.yml"
DASHBOARD = INFRA / "grafana" / "dashboards" / "granule.json"
NAME = re.compile(r"granule_[a-z0-9_]+")
OWN_LABELS = {"le", "job", "instance"}


def known() -> dict[str, Described]:
    """What a scrape can hold, histograms by the three series that they are made of."""
    table = {}
    for line in describe():
        suffixes = ("_bucket", "_sum", "_count") if line.kind == "histogram" else ("",)
        table |= {line.name + suffix: line for suffix in suffixes}
    return table


def alert_rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    for rule in alert_rules():
        yield rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


@pytest.mark.parametrize("expression", list(expressions()))
def test_what_is_asked_for_exists(expression: str) -> None:
    names = known()
    found = NAME.findall(expression)
    assert set(found) <= set(names), set(found) - set(names)
    labels = set().union(*(names[name].labels for name in found)) | OWN_LABELS
    asked = {label.strip() for inner in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in inner.split(",")}
    asked |= {label for inner in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)\s*[=!]~?", inner)}
    assert asked <= labels, asked - labels


def test_the_dashboard_shows_every_metric() -> None:
    shown = set().union(*(NAME.findall(expression) for expression in expressions()))
    missing = {line.name for name, line in known().items()} - {known()[name].name for name in shown}
    assert not missing


def test_every_alert_says_what_to_do() -> None:
    for rule in alert_rules():
        assert set(rule["annotations"]) == {"summary", "action"} and rule["labels"]["severity"] in ("critical", "warning")


def test_panels_lie_side_by_side_and_have_units() -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not taken & cells and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on PATH (Debian: apt install prometheus)")
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", str(ALERTS)],
        ["check", "config", "--syntax-only", str(INFRA / "prometheus" / "prometheus.yml")],
        ["test", "rules", str(REPOSITORY / "tests" / "unit" / "alerts.yml")],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_agrees(arguments: list[str]) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
