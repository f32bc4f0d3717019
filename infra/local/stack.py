"""The whole of Granule on one machine, as a list of programs for the supervisor."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr

from infra.local.credentials import Credentials, load_credentials
from infra.local.ports import is_free, remembered_block
from infra.local.process import Program
from infra.local.redis_server import RedisServer, redis_answers
from infra.local.s3_server import PORT_COUNT, S3Server, s3_client
from shared.errors import SettingsInvalid
from shared.manifest import load_catalog
from shared.queue import DELIVER_QUEUE
from shared.settings import REPOSITORY, Settings

OLD_VERSION = "763970a6702524ff048dd130709e255581912c8a4ab516db4520788f70b84e30"
"""The version of nauslava/rubber-tile-lora-v45 that callers have written into their code."""
OLD_MODEL = "nauslava/rubber-tile-lora-v45"

LOAD_TIMEOUT_S = 600.0
API_TIMEOUT_S = 60.0
STOP_MARGIN_S = 10.0


@dataclass(frozen=True)
class Stack:
    """What to run, and where the API will answer."""

    programs: tuple[Program, ...]
    url: str


def plan_stack(settings: Settings, environ: Mapping[str, str], *, folder: Path, port: int) -> Stack:
    """Decide on ports and keys, write the servers' configuration into `folder`, and list the programs in starting order.

    Redis and S3 are started only where `settings` names no server. `environ` is handed on to the programs; `port` is the
    API's, 0 for a free one.

    Raises:
        SettingsInvalid: the port is taken, a server that is named does not answer, or one of ours is not installed.
        ManifestInvalid: a manifest in the models folder is wrong.
        ModelUnknown: there is none of the model that is to be served.
    """
    load_catalog(settings.models_dir, settings.version_aliases).by_slug(settings.model)
    folder = folder.resolve()
    credentials = load_credentials(folder / "credentials.json")
    # One block for all: a port picked by itself could be one that a server of this very stack will listen on.
    ports = remembered_block(folder / "ports", 2 + PORT_COUNT)
    port = _api_port(settings.host, port or ports[-1])
    env = dict(environ) | _defaults(settings, credentials) | {"GRANULE_PORT": str(port), "PYTHONUNBUFFERED": "1"}
    # Nothing here may be asked for through a proxy of the machine's.
    bypass = environ.get("no_proxy") or environ.get("NO_PROXY")
    env["no_proxy"] = env["NO_PROXY"] = ",".join(filter(None, [bypass, "127.0.0.1,localhost"]))

    servers: list[Program] = []
    if "redis_url" in settings.model_fields_set:
        if not settings.redis_sentinels:
            _check_redis(settings.redis_url)
    else:
        redis = RedisServer(directory=folder / "redis", port=ports[0], password=credentials.redis_password)
        servers.append(redis.program(environ))
        env["GRANULE_REDIS_URL"] = redis.url
    if settings.s3_endpoint_url is not None:
        _check_s3(settings)
    else:
        s3 = _s3_server(settings, credentials, folder, ports[1:-1])
        servers.append(s3.program(environ))
        env |= s3.environment()

    url = f"http://{_reachable(settings.host)}:{port}"
    workers = _render_worker(settings, env, url), _courier(settings, env)
    return Stack((*servers, *workers, _api(settings, env, port, url)), url)


def _s3_server(settings: Settings, credentials: Credentials, folder: Path, ports: Sequence[int]) -> S3Server:
    return S3Server(
        directory=folder / "s3",
        ports=ports,
        bucket=settings.s3_bucket,
        access_key_id=credentials.s3_access_key_id,
        secret_access_key=credentials.s3_secret_access_key,
        region=settings.s3_region,
    )


def _render_worker(settings: Settings, env: dict[str, str], url: str) -> Program:
    return Program(
        name="render",
        command=(sys.executable, "-m", "worker.guardian"),
        env=env,
        cwd=REPOSITORY,
        # A worker shows itself through Redis, and the API tells.
        ready=lambda: _answers_ok(f"{url}/readyz"),
        ready_timeout_s=LOAD_TIMEOUT_S,
        background=True,
        grace_s=settings.grace_s + STOP_MARGIN_S,
    )


def _courier(settings: Settings, env: dict[str, str]) -> Program:
    options = ["--pool", "threads", "--concurrency", "8", "--queues", DELIVER_QUEUE, "--hostname", "courier@%h"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", settings.log_level]
    return Program(
        name="courier",
        command=(sys.executable, "-m", "celery", "--quiet", "--app", "worker.tasks", "worker", *options, *quiet),
        env=env,
        cwd=REPOSITORY,
        grace_s=settings.webhook_timeout_s + STOP_MARGIN_S,
    )


def _api(settings: Settings, env: dict[str, str], port: int, url: str) -> Program:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    options = ["--config", "python:api.serving", "--graceful-timeout", "5", "--bind", f"{host}:{port}"]
    return Program(
        name="api",
        command=(sys.executable, "-m", "gunicorn", *options, "api.server:create_app()"),
        env=env,
        cwd=REPOSITORY,
        ready=lambda: _answers_ok(f"{url}/healthz"),
        ready_timeout_s=API_TIMEOUT_S,
    )


def _defaults(settings: Settings, credentials: Credentials) -> dict[str, str]:
    """What the local stack sets where the user did not."""
    secret = settings.webhook_secret or SecretStr(credentials.webhook_secret)
    values = {"GRANULE_WEBHOOK_SECRET": secret.get_secret_value()}
    if "version_aliases" not in settings.model_fields_set and settings.model != OLD_MODEL:
        values["GRANULE_VERSION_ALIASES"] = f"{OLD_VERSION}={settings.model}"
    if "webhook_allowed_hosts" not in settings.model_fields_set and not (settings.api_tokens or settings.api_tokens_file):
        # Without tokens only programs on this machine are served, and their receivers run here too.
        values["GRANULE_WEBHOOK_ALLOWED_HOSTS"] = "127.0.0.1,localhost"
    return values


def _api_port(host: str, port: int) -> int:
    if not is_free(port, host):
        raise SettingsInvalid(
            f"port {port} on {host} is taken or not allowed; set PORT to another one, or to 0 for any free one", field="PORT"
        )
    return port


def _reachable(host: str) -> str:
    """An address that programs on this machine reach the API at."""
    if host in ("0.0.0.0", "::", "localhost"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _answers_ok(url: str) -> bool:
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(url, timeout=2).ok
        except requests.RequestException:
            return False


def _check_redis(url: str) -> None:
    try:
        answers = redis_answers(url)
    except ValueError as error:
        raise SettingsInvalid(f"REDIS_URL is not an address: {error}", field="REDIS_URL") from error
    if not answers:
        raise SettingsInvalid("the server at REDIS_URL does not answer, or refuses the password in it", field="REDIS_URL")


def _check_s3(settings: Settings) -> None:
    """See that the bucket can be used, and make it if it is not there and that is allowed."""
    key_id, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    client = s3_client(
        settings.s3_endpoint_url,
        key_id.get_secret_value() if key_id else None,
        secret.get_secret_value() if secret else None,
        settings.s3_region,
    )
    try:
        try:
            client.head_bucket(Bucket=settings.s3_bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
                raise
            client.create_bucket(Bucket=settings.s3_bucket)
    except (BotoCoreError, ClientError) as error:
        raise SettingsInvalid(
            f"the bucket {settings.s3_bucket} at S3_ENDPOINT_URL cannot be used: {error}. Check the address, "
            "GRANULE_S3_BUCKET, GRANULE_S3_ACCESS_KEY_ID and GRANULE_S3_SECRET_ACCESS_KEY",
            field="S3_ENDPOINT_URL",
        ) from error
    finally:
        client.close()
