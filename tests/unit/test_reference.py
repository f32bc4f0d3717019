from __future__ import annotations

import yaml

from infra.reference import (
    ALERTS,
    ALERTS_K8S,
    CONFIGURATION,
    OPERATIONS,
    PROMPTS,
    configuration,
    kubernetes_rules,
    operations,
    prompts,
)
from shared.settings import Settings


def test_the_table_of_settings_is_what_the_code_reads() -> None:
    assert CONFIGURATION.read_text(encoding="utf-8") == configuration(), "run: python -m infra.reference"


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, info in Settings.model_fields.items() if not info.description] == []


def test_the_table_of_colours_is_the_palette() -> None:
    text = PROMPTS.read_text(encoding="utf-8")
    assert prompts(text) == text, "run: python -m infra.reference"
    assert text.count("| `DKGREEN` | dark green |") == 1


def test_the_table_of_metrics_is_what_is_exposed() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    assert operations(text) == text, "run: python -m infra.reference"
    assert text.count("| `granule_jobs_waiting` | gauge | model, lane |") == 1


def test_the_operators_rules_are_those_of_prometheus() -> None:
    text = ALERTS.read_text(encoding="utf-8")
    assert ALERTS_K8S.read_text(encoding="utf-8") == kubernetes_rules(text), "run: python -m infra.reference"
    assert yaml.safe_load(ALERTS_K8S.read_text(encoding="utf-8"))["spec"]["groups"] == yaml.safe_load(text)["groups"]
