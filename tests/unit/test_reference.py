from __future__ import annotations

from infra.reference import CONFIGURATION, PROMPTS, configuration, prompts
from shared.settings import Settings


def test_the_table_of_settings_is_what_the_code_reads() -> None:
    assert CONFIGURATION.read_text(encoding="utf-8") == configuration(), "run: python -m infra.reference"


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, info in Settings.model_fields.items() if not info.description] == []


def test_the_table_of_colours_is_the_palette() -> None:
    text = PROMPTS.read_text(encoding="utf-8")
    assert prompts(text) == text, "run: python -m infra.reference"
    assert text.count("| `DKGREEN` | dark green |") == 1
