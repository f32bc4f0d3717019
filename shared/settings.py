"""Everything an operator can set, read once from the environment into one frozen object.

No other module reads `os.environ`. Each field below is the variable `GRANULE_<FIELD>`; the few that other tools also know
(`REDIS_URL`, `S3_ENDPOINT_URL`, `PORT`, `DATA_DIR`, two of OpenTelemetry's) are read under their common name too.
`docs/configuration.md` has the same list as a table, and a test compares the two.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.errors import SettingsInvalid

PREFIX = "GRANULE_"
REPOSITORY = Path(__file__).resolve().parent.parent

WEBHOOK_SECRET = re.compile(r"whsec_(?:[A-Za-z0-9+/]{4}){8,}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")

OTLP_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\s*=[!-~ ]+")

CommaList = Annotated[tuple[str, ...], NoDecode]


def _shared_name(name: str) -> AliasChoices:
    """Read a field from `GRANULE_<name>` or, failing that, from the plain name that other tools use."""
    return AliasChoices(PREFIX + name, name)


class Settings(BaseSettings):
    """All settings with unit, default and bound. Build it with `load_settings`; tests pass keyword arguments."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    secrets_dir: Path | None = None
    """Folder of files named like these variables, each holding one's value, as Docker and Kubernetes mount secrets; a variable
    that is set itself wins."""

    # Servers
    redis_url: str = Field("redis://127.0.0.1:6379/0", validation_alias=_shared_name("REDIS_URL"))
    """Redis or Valkey >= 6.2; holds job records and the Celery queues."""
    redis_sentinels: CommaList = ()
    """`host:port` of every Sentinel, comma separated; the host of the Redis address is then the name that they know it by."""
    redis_prefix: str = Field("granule:", pattern=r"^[a-zA-Z0-9:_-]+$")
    """First part of every Redis key, so that several installations can share a server."""
    redis_timeout_s: float = Field(2.0, gt=0, le=60)
    """How long one Redis call may take before the API answers 503."""
    s3_endpoint_url: str | None = Field(None, validation_alias=_shared_name("S3_ENDPOINT_URL"))
    """S3-compatible server; unset means AWS."""
    s3_bucket: str = "granule"
    """Bucket that pictures are stored in; it must exist, except in the local stack, which makes its own."""
    s3_region: str = "us-east-1"
    """Region that requests are signed for."""
    s3_access_key_id: SecretStr | None = None
    """Key id; unset: the usual places of the AWS SDK are looked through."""
    s3_secret_access_key: SecretStr | None = None
    """Secret of that key."""
    s3_addressing_style: Literal["path", "virtual", "auto"] = "path"
    """How the bucket stands in the address."""
    s3_redirect_url: str | None = Field(None, pattern=r"^https?://[^/?#]+/?$")
    """Address of the storage as callers reach it: pictures are fetched there, by a redirect to an address that is signed for
    five minutes. Unset: the API streams them. Some clients follow no redirect (docs/operations.md)."""

    # API
    host: str = "127.0.0.1"
    """Address the API of the local stack listens on."""
    port: int = Field(8000, ge=0, le=65535, validation_alias=_shared_name("PORT"))
    """Port of the API in the local stack; 0 picks a free one."""
    public_url: str | None = Field(None, pattern=r"^https?://[^/?#]+(/[^?#]*)?$")
    """Base of every URL that is handed out, e.g. https://tiles.example.com; unset: the address the request came to."""
    api_tokens: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """`name:token` entries, comma separated; jobs belong to the name. Empty: only loopback clients are served."""
    api_tokens_file: Path | None = None
    """TOML file of further tokens, as digests, with what each allows (docs/operations.md); a change to it counts at once."""
    token_max_waiting_jobs: int | None = Field(None, ge=1)
    """Jobs of a tenant that may wait before its creates answer 429; an entry of the file can say otherwise. Unset: no bound."""
    token_creates_per_minute: int | None = Field(None, ge=1)
    """Orders that a token may place in a minute; an entry of the file can say otherwise. Unset: no bound."""
    token_max_candidates: int = Field(4, ge=1, le=4)
    """Largest `num_candidates` that a token may order; an entry of the file can say otherwise."""
    hold_max_s: float = Field(55.0, ge=1, le=55)
    """Longest time a create with `Prefer: wait` is held open."""
    body_max_bytes: int = Field(65_536, ge=1_024)
    """Largest request body that is read."""
    header_max_bytes: int = Field(16_384, ge=1_024, le=65_536)
    """Largest sum of a request's headers that is accepted."""
    queue_max_jobs: int = Field(10_000, ge=1)
    """Jobs of one model that may wait before creates answer 429."""
    reuse_results: bool = True
    """Answer an order that names a seed with the tenant's stored picture of the same order and weights, if there is one."""
    reuse_across_tenants: bool = False
    """The stored picture may be another tenant's: who orders it learns that it was drawn before. For tenants of one house."""
    holds_max: int = Field(16, ge=0)
    """Creates with `Prefer: wait` that one API process holds open; each takes a thread. More are answered at once."""
    streams_max: int = Field(8, ge=1)
    """Event streams (`urls.stream`) that one API process holds open; each takes a thread. More are answered with 429."""
    stream_limit_s: float = Field(900.0, ge=1)
    """How long one event stream may last; its reader connects again and goes on where it was."""
    prompt_policy: Literal["lenient", "strict"] = "lenient"
    """What happens to words that are no palette colour: passed on with a warning, or refused."""

    # Models
    models_dir: Path = REPOSITORY / "models"
    """Folder of the model manifests."""
    weights_dir: Path | None = None
    """Folder that relative weight paths of a manifest are looked up in; unset: the manifest's own folder."""
    model: str = Field("granule/rubber-tile-mini", pattern=r"^[a-z0-9._-]+/[a-z0-9._-]+$")
    """owner/name of the model this render worker serves."""
    version_aliases: CommaList = ()
    """`version=owner/name` entries: serve a version id that callers have hard-coded with another model."""

    # Render worker
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where the render worker draws; auto takes the first CUDA device, else the CPU."""
    dtype: Literal["manifest", "bfloat16", "float16", "float32"] = "manifest"
    """Number format of the weights; manifest leaves it to the model."""
    torch_threads: int = Field(0, ge=0, le=256)
    """CPU threads of the render process; 0 leaves torch's own choice."""
    lease_s: float = Field(15.0, ge=1, le=600)
    """How long a running job may go without a sign of life before it is given to another worker."""
    heartbeat_s: float = Field(5.0, ge=0.1, le=200)
    """How often the guardian renews the lease and shows its worker; at most half of the lease."""
    freeze_limit_s: float = Field(60.0, ge=5)
    """A worker whose interpreter showed no pulse for this long is killed."""
    load_limit_s: float = Field(1800.0, ge=10)
    """A worker that is not ready this long after its start is killed."""
    step_limit_s: float = Field(120.0, ge=5)
    """A worker whose job makes no step for this long is killed. A step of a batch is one of all its pictures, and takes as much
    longer."""
    job_limit_s: float = Field(900.0, ge=10)
    """A worker whose job is drawn for longer than this is killed. Jobs of a batch are drawn for as long as all of them take."""
    grace_s: float = Field(120.0, ge=0)
    """How long a worker that is told to stop may go on with its job before the job is given to another."""
    publish_limit_s: float = Field(600.0, ge=1)
    """How long the uploads of a finished job's pictures are tried before it fails."""
    spool_places: int = Field(2, ge=0, le=16)
    """Finished pictures, or batches of them, that a worker publishes while it draws on; it claims nothing while all are taken.
    0: one at a time, and no batches."""
    pulse_fd: int | None = Field(None, ge=0)
    """Pipe to the guardian; the guardian sets it for its worker."""
    worker_name: str | None = None
    """Name of a render worker, for as long as its guardian lives; the guardian sets it for its worker."""
    max_attempts: int = Field(3, ge=1, le=20)
    """Crashed attempts after which a job fails."""
    retention_s: int = Field(30 * 24 * 3600, ge=60)
    """How long an ended job's input, logs and pictures are kept; its row stays readable."""
    row_retention_s: int = Field(90 * 24 * 3600, ge=60)
    """How long the row of a job stays readable and listed after its data was removed; then nothing of it is left."""

    # Webhooks
    webhook_secret: SecretStr | None = Field(None)
    """`whsec_` and standard base64; each tenant's signing secret is made from it. Unset: webhooks are refused at create."""
    webhook_secret_old: SecretStr | None = Field(None)
    """The one before it: while it is set, webhooks carry a signature by each."""
    webhook_allowed_hosts: CommaList = ()
    """Host names or addresses of receivers that may be private or plain http; everything else must be public https."""
    webhook_timeout_s: float = Field(10.0, gt=0, le=30)
    """How long one try of a delivery may take, from the resolution of the name to the answer."""

    # Command line
    client_url: str | None = None
    """Address of the API that the `granule` commands call; unset: the one on this machine."""
    client_token: SecretStr | None = None
    """Token that they call it with."""

    # Local stack and logs
    data_dir: Path = Field(Path(".granule"), validation_alias=_shared_name("DATA_DIR"))
    """Where the local stack keeps its servers' data, keys and logs."""
    metrics_token: SecretStr | None = None
    """What a scraper sends as its Bearer token to `/metrics` of the API; unset: it is answered on its own machine only."""
    metrics_host: str = "127.0.0.1"
    """Address that a courier or render worker shows its metrics on, to everybody who reaches it."""
    metrics_port: int = Field(0, ge=0, le=65535)
    """Port of a courier's or render worker's metrics, one for each process; 0 shows none."""
    metrics_dir: Path | None = Field(None, validation_alias=AliasChoices("PROMETHEUS_MULTIPROC_DIR"))
    """Folder where the processes of one API put their counts together; gunicorn's configuration makes one at each start."""
    otel_exporter_otlp_endpoint: str | None = Field(
        None, pattern=r"^https?://[^/?#]+(/[^?#]*)?$", validation_alias=_shared_name("OTEL_EXPORTER_OTLP_ENDPOINT")
    )
    """Collector that traces are sent to by OTLP over HTTP, without `/v1/traces`: needs `granule[trace]`. Unset: no traces."""
    otel_exporter_otlp_headers: SecretStr | None = Field(None, validation_alias=_shared_name("OTEL_EXPORTER_OTLP_HEADERS"))
    """Headers that the collector asks for: `name=value` entries, comma separated, percent-encoded."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe log lines that are written."""
    log_format: Literal["text", "json"] = "text"
    """Text for people, or one JSON object a line."""

    @field_validator("otel_exporter_otlp_endpoint", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        # As OpenTelemetry has it: what is set to nothing is not set.
        return value or None

    @field_validator("otel_exporter_otlp_headers")
    @classmethod
    def _check_headers(cls, value: SecretStr | None) -> SecretStr | None:
        entries = [] if value is None else value.get_secret_value().split(",")
        # Its own words only: the library would write what it cannot read into the log, and there are keys among it.
        if not all(OTLP_HEADER.fullmatch(entry.strip()) for entry in entries if entry.strip()):
            raise ValueError("must be name=value entries, comma separated, with other characters percent-encoded")
        return value

    @field_validator("redis_sentinels")
    @classmethod
    def _check_sentinels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            host, _, port = entry.rpartition(":")
            if not host or not port.isdecimal():
                raise ValueError(f"{entry!r} is not host:port")
        return value

    @field_validator("api_tokens", "redis_sentinels", "version_aliases", "webhook_allowed_hosts", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("webhook_secret", "webhook_secret_old")
    @classmethod
    def _check_secret(cls, value: SecretStr | None) -> SecretStr | None:
        # The official Python client splits the secret at "_" and insists on exactly two parts.
        if value is not None and not WEBHOOK_SECRET.fullmatch(value.get_secret_value()):
            raise ValueError("must be whsec_ followed by 32 or more characters of standard base64, not of its url-safe kind")
        return value

    @field_validator("heartbeat_s")
    @classmethod
    def _check_heartbeat(cls, value: float, info: Any) -> float:
        if "lease_s" in info.data and value > info.data["lease_s"] / 2:
            raise ValueError("must be at most half of lease_s, or one late beat loses the job")
        return value


def load_settings() -> Settings:
    """Read and check the process's environment.

    Raises:
        SettingsInvalid: a value is out of bounds, or a `GRANULE_` variable is not known; the text names every one.
    """
    known = variables()
    problems = []
    for name in sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known):
        near = difflib.get_close_matches(name, known, n=1)
        problems.append(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        settings = Settings(_secrets_dir=_secrets_dir(problems))
    except ValidationError as error:
        problems += [f"{_variable_of(e['loc'][0])}: {e['msg']}" for e in error.errors()]
        raise SettingsInvalid("; ".join(problems)) from error
    if problems:
        raise SettingsInvalid("; ".join(problems))
    return settings


def _secrets_dir(problems: list[str]) -> str | None:
    """Return the folder to read secrets from, after a look for files in it that name no variable."""
    name = f"{PREFIX}SECRETS_DIR"
    folder = os.environ.get(name)
    if folder is None:
        return None
    if not Path(folder).is_dir():
        problems.append(f"{name}: {folder} is not a folder")
        return None
    known = variables()
    found = sorted(path.name for path in Path(folder).iterdir() if path.is_file())
    problems += [f"{folder}/{file}: no setting has this name" for file in found if file not in known]
    return folder


def _variable_of(location: str | int) -> str:
    """Name the variable that a validation error's location (a field or an alias) stands for."""
    for name, field in variables().items():
        if location in (name, field):
            return name
    return str(location)


def variables() -> dict[str, str]:
    """Map each variable's name to its field; where a field has two names the one with the prefix comes first and wins."""
    table: dict[str, str] = {}
    for field, info in Settings.model_fields.items():
        alias = info.validation_alias
        names = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [PREFIX + field.upper()]
        table.update({name: field for name in names})
    return table
