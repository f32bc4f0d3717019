"""The doctor on the settings: each is within its bounds, or the process would not start; here is what does not fit together."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from urllib.parse import urlsplit

from api.tokens import read_tokens
from cli.client import LOOPBACK
from cli.findings import Finding, Level, note, ok, warning, wrong
from shared.errors import SettingsInvalid
from shared.settings import Settings

HANGING_CALL_S = 18.0
"""One call to a storage that hangs may take this long, and counts as a step."""
API_THREADS = 32
SPARE_THREADS = 8


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Say which settings contradict each other, or promise what they do not hold."""
    checks = (_check_callers, _check_storage_keys, _check_limits, _check_webhooks, _check_traces)
    found = [finding for check in checks for finding in check(settings)]
    if settings.pulse_fd is not None or settings.worker_name is not None:
        found.append(
            wrong(
                "settings",
                "GRANULE_PULSE_FD and GRANULE_WORKER_NAME are set",
                "unset them: a guardian sets them for its worker",
            )
        )
    yield from found
    if all(finding.level is Level.NOTE for finding in found):
        yield ok("settings", f"{len(settings.model_fields_set)} are set, and they fit together")


def _check_callers(settings: Settings) -> Iterator[Finding]:
    tokens = bool(settings.api_tokens or settings.api_tokens_file)
    if settings.public_url and not tokens:
        yield wrong(
            "tokens", "GRANULE_PUBLIC_URL is set without tokens, and the API will not start", "python -m api.tokens new NAME"
        )
    elif not tokens and settings.host not in LOOPBACK:
        yield warning(
            "tokens",
            f"the API listens on {settings.host}, and without tokens it serves this machine's own programs only",
            "python -m api.tokens new NAME >> tokens.toml, and name the file in GRANULE_API_TOKENS_FILE",
        )
    if settings.api_tokens_file is not None:
        try:
            read_tokens(settings.api_tokens_file, settings)
        except SettingsInvalid as error:
            yield wrong("tokens", error.detail, "python -m api.tokens new NAME writes an entry of the right form")
    address = urlsplit(settings.public_url or "")
    if address.scheme == "http" and address.hostname not in LOOPBACK:
        yield warning(
            "public url",
            f"{settings.public_url} sends tokens in the clear",
            "serve https, through a proxy, and say https there",
        )
    server = urlsplit(settings.redis_url)
    if server.scheme == "redis" and server.hostname not in LOOPBACK and not server.password:
        yield warning(
            "redis",
            f"{server.hostname} is another host, and REDIS_URL has no password",
            "set one: redis://:PASSWORD@HOST:6379/0",
        )


def _check_storage_keys(settings: Settings) -> Iterator[Finding]:
    names = {
        "GRANULE_S3_ACCESS_KEY_ID": settings.s3_access_key_id,
        "GRANULE_S3_SECRET_ACCESS_KEY": settings.s3_secret_access_key,
    }
    missing = [name for name, value in names.items() if value is None]
    if len(missing) == 1:
        yield wrong("s3", f"{missing[0]} is unset and its other half is set", "set both, or none to use what the AWS SDK finds")


def _check_limits(settings: Settings) -> Iterator[Finding]:
    if settings.step_limit_s <= HANGING_CALL_S:
        yield warning(
            "limits",
            f"GRANULE_STEP_LIMIT_S is {settings.step_limit_s:g} s; a call to a storage that hangs may take {HANGING_CALL_S:g}",
            f"set it above {HANGING_CALL_S:g}, or a worker is killed for its storage",
        )
    if settings.job_limit_s < settings.step_limit_s:
        yield warning(
            "limits",
            "GRANULE_JOB_LIMIT_S is below GRANULE_STEP_LIMIT_S, which then never counts",
            "raise the one or lower the other",
        )
    held = settings.holds_max + settings.streams_max
    if held > API_THREADS - SPARE_THREADS:
        yield warning(
            "limits",
            f"GRANULE_HOLDS_MAX and GRANULE_STREAMS_MAX together take {held} threads of an API process",
            f"keep their sum well below gunicorn's --threads, which is {API_THREADS} unless you changed it",
        )


def _check_webhooks(settings: Settings) -> Iterator[Finding]:
    if settings.webhook_secret is None:
        yield note("webhooks", "GRANULE_WEBHOOK_SECRET is unset: orders with a webhook are refused, except under ./granule up")
    elif settings.webhook_secret == settings.webhook_secret_old:
        yield warning("webhooks", "the old secret is the present one", "unset GRANULE_WEBHOOK_SECRET_OLD")


def _check_traces(settings: Settings) -> Iterator[Finding]:
    if settings.otel_exporter_otlp_endpoint is not None and find_spec("opentelemetry") is None:
        yield warning(
            "traces",
            "OTEL_EXPORTER_OTLP_ENDPOINT names a collector, and what sends traces is not installed",
            "pip install -c constraints.txt -e '.[trace]'",
        )
