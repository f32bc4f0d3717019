from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.errors import SettingsInvalid
from shared.settings import Settings, load_settings, variables

SECRET = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    yield


def set_all(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_nothing_needs_to_be_set() -> None:
    settings = load_settings()
    assert settings.port == 8000
    assert settings.model == "granule/rubber-tile-mini"
    assert settings.api_tokens == ()
    assert settings.models_dir.is_dir()


def test_every_variable_is_read_under_each_of_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    table = variables()
    assert set(table.values()) == set(Settings.model_fields)
    for plain in ("REDIS_URL", "S3_ENDPOINT_URL", "PORT", "DATA_DIR"):
        assert table[plain] == table["GRANULE_" + plain]
    monkeypatch.setenv("PORT", "8100")
    assert load_settings().port == 8100
    monkeypatch.setenv("GRANULE_PORT", "8200")
    assert load_settings().port == 8200


def test_a_collector_is_known_by_opentelemetrys_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().otel_exporter_otlp_endpoint is None
    set_all(monkeypatch, {"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_EXPORTER_OTLP_HEADERS": ""})
    assert load_settings().otel_exporter_otlp_endpoint is None
    set_all(monkeypatch, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318"})
    assert load_settings().otel_exporter_otlp_endpoint == "http://otel:4318"
    set_all(monkeypatch, {"OTEL_EXPORTER_OTLP_ENDPOINT": "otel:4317", "OTEL_EXPORTER_OTLP_HEADERS": "key of the house"})
    with pytest.raises(SettingsInvalid) as caught:
        load_settings()
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in str(caught.value) and "OTEL_EXPORTER_OTLP_HEADERS" in str(caught.value)
    assert "key of the house" not in str(caught.value)


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        {
            "GRANULE_API_TOKENS": "shop:one, desk:two,",
            "GRANULE_VERSION_ALIASES": "",
            "GRANULE_WEBHOOK_ALLOWED_HOSTS": "10.0.0.7",
        },
    )
    settings = load_settings()
    assert [token.get_secret_value() for token in settings.api_tokens] == ["shop:one", "desk:two"]
    assert settings.version_aliases == ()
    assert settings.webhook_allowed_hosts == ("10.0.0.7",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("GRANULE_PORT", "http"),
        ("GRANULE_REDIS_PREFIX", "granule *"),
        ("GRANULE_REDIS_TIMEOUT_S", "0"),
        ("GRANULE_PUBLIC_URL", "tiles.example.com"),
        ("GRANULE_PUBLIC_URL", "https://tiles.example.com/?x=1"),
        ("GRANULE_PROMPT_POLICY", "loose"),
        ("GRANULE_MODEL", "rubber-tile-mini"),
        ("GRANULE_DEVICE", "gpu"),
        ("GRANULE_DTYPE", "int8"),
        ("GRANULE_HEARTBEAT_S", "8"),
        ("GRANULE_WEBHOOK_SECRET", "secret"),
        ("GRANULE_WEBHOOK_SECRET", "whsec_" + "a_b-" * 8),
        ("GRANULE_LOG_LEVEL", "debug"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=name):
        load_settings()


def test_all_problems_are_told_at_once_and_no_secret_is(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        {"GRANULE_PROT": "8000", "GRANULE_LEASE_S": "0", "GRANULE_DEVICE": "tpu", "GRANULE_WEBHOOK_SECRET": "hunter2"},
    )
    with pytest.raises(SettingsInvalid) as caught:
        load_settings()
    for part in (
        "GRANULE_PROT is not a setting; did you mean GRANULE_PORT?",
        "GRANULE_LEASE_S",
        "GRANULE_DEVICE",
        "WEBHOOK_SECRET",
    ):
        assert part in caught.value.detail
    assert "hunter2" not in caught.value.detail


def test_other_programs_variables_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"GRANULARITY": "fine", "HOST": "0.0.0.0", "MODEL": "x"})
    assert load_settings().host == "127.0.0.1"


def test_secrets_do_not_show_and_nothing_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"GRANULE_WEBHOOK_SECRET": SECRET, "GRANULE_API_TOKENS": "shop:one"})
    settings = load_settings()
    assert SECRET not in repr(settings) and "shop:one" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


def test_tests_can_pass_fields_by_name() -> None:
    settings = Settings(redis_url="redis://127.0.0.1:1/0", data_dir=Path("x"), lease_s=2, heartbeat_s=1)
    assert (settings.redis_url, settings.data_dir, settings.lease_s) == ("redis://127.0.0.1:1/0", Path("x"), 2)


def test_secrets_are_read_from_files_and_a_variable_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "GRANULE_REDIS_URL").write_text("redis://:secret@redis:6379/0\n")
    (tmp_path / "GRANULE_WEBHOOK_SECRET").write_text(SECRET)
    set_all(monkeypatch, {"GRANULE_SECRETS_DIR": str(tmp_path), "GRANULE_S3_BUCKET": "tiles"})
    settings = load_settings()
    assert settings.redis_url == "redis://:secret@redis:6379/0" and settings.s3_bucket == "tiles"
    assert settings.webhook_secret is not None and settings.webhook_secret.get_secret_value() == SECRET
    monkeypatch.setenv("GRANULE_REDIS_URL", "redis://elsewhere:6379/0")
    assert load_settings().redis_url == "redis://elsewhere:6379/0"


def test_a_secrets_folder_that_cannot_be_meant_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "GRANULE_REDIS_URI").write_text("redis://redis:6379/0")
    monkeypatch.setenv("GRANULE_SECRETS_DIR", str(tmp_path))
    with pytest.raises(SettingsInvalid, match="GRANULE_REDIS_URI: no setting has this name"):
        load_settings()
    monkeypatch.setenv("GRANULE_SECRETS_DIR", str(tmp_path / "absent"))
    with pytest.raises(SettingsInvalid, match="is not a folder"):
        load_settings()


def test_a_sentinel_has_a_host_and_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANULE_REDIS_SENTINELS", "10.0.0.1:26379, 10.0.0.2:26379")
    assert load_settings().redis_sentinels == ("10.0.0.1:26379", "10.0.0.2:26379")
    monkeypatch.setenv("GRANULE_REDIS_SENTINELS", "10.0.0.1")
    with pytest.raises(SettingsInvalid, match="GRANULE_REDIS_SENTINELS: .*is not host:port"):
        load_settings()
