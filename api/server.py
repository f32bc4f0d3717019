"""The API: `gunicorn 'api.server:create_app()'`. Puts the parts together and mounts the views; connects to nothing."""

from __future__ import annotations

import re
import secrets
from functools import partial
from threading import BoundedSemaphore, Semaphore

from flask import Blueprint, Flask, Response, g, request

from api import (
    colors,
    dead_letters,
    deliveries,
    docs,
    files,
    health,
    models,
    openapi,
    overview,
    predictions,
    preview,
    stream,
    studio,
    workers,
)
from api.auth import Tokens
from api.context import EXTENSION, Context, Enqueue
from api.limits import OrderLimits, connect_limits
from api.metrics import register_metrics
from api.places import READS_MAX, Places
from api.problems import register_problems
from api.readiness import Probe
from api.sizes import check_sizes
from api.tracing import register_tracing
from shared import logs
from shared.floor import connect_floor
from shared.job_store import JobStore, connect_store
from shared.logs import configure_logging
from shared.manifest import Catalog, load_catalog
from shared.outbox import Outbox, connect_outbox
from shared.previews import Previews, connect_previews
from shared.queue import enqueue_render, make_celery
from shared.redis_client import connect
from shared.settings import Settings, load_settings
from shared.storage import Storage, connect_storage
from shared.tracing import Tracer, connect_tracer
from shared.worker_registry import WorkerRegistry, connect_workers

REQUEST_ID_HEADER = "X-Request-Id"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

BASES = ("/v1", "/v1/v1", "")
"""One official client adds /v1 to its base URL and two do not: mounted three times, the API is found by all of them,
whichever form somebody configured. The first is the one that is handed out."""


def create_app(
    settings: Settings | None = None,
    *,
    store: JobStore | None = None,
    enqueue: Enqueue | None = None,
    storage: Storage | None = None,
    catalog: Catalog | None = None,
    workers: WorkerRegistry | None = None,
    limits: OrderLimits | None = None,
    outbox: Outbox | None = None,
    tracer: Tracer | None = None,
    previews: Previews | None = None,
) -> Flask:
    """Build the WSGI application. Parts that are not given are built as the settings say.

    Without settings they come from the environment, and the process's log lines are written as they say.

    Raises:
        SettingsInvalid: a setting cannot work.
        ManifestInvalid: a model's manifest cannot be used.
    """
    if settings is None:
        settings = load_settings()
        configure_logging(settings)
    redis = connect(settings.redis_url, timeout_s=settings.redis_timeout_s, sentinels=settings.redis_sentinels)
    app = _bare_app(settings)
    storage = storage or connect_storage(settings)
    catalog = catalog or load_catalog(settings.models_dir, settings.version_aliases)
    workers = workers or connect_workers(settings, redis)
    app.extensions[EXTENSION] = Context(
        settings=settings,
        store=store or connect_store(settings, redis),
        floor=connect_floor(settings, redis),
        outbox=outbox or connect_outbox(settings, redis),
        previews=previews or connect_previews(settings, redis),
        enqueue=enqueue or partial(enqueue_render, make_celery(settings)),
        storage=storage,
        catalog=catalog,
        workers=workers,
        tokens=Tokens(settings),
        limits=limits or connect_limits(settings, redis),
        streams=BoundedSemaphore(settings.streams_max),
        holds=Semaphore(settings.holds_max),
        reads=Places(READS_MAX),
        probe=Probe(workers, storage, catalog),
        tracer=tracer or connect_tracer(settings, "granule-api"),
    )
    _mount(app)
    return app


def _bare_app(settings: Settings) -> Flask:
    """Return an application without parts and routes: what is done around every request, in this order."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.body_max_bytes
    app.url_map.strict_slashes = False
    # Merging would answer with a redirect to whatever the request names as its host.
    app.url_map.merge_slashes = False
    register_metrics(app)
    register_tracing(app)
    app.before_request(_name_request)
    app.before_request(partial(_check_sizes, settings))
    app.after_request(_show_request_name)
    register_problems(app)
    return app


def _mount(app: Flask) -> None:
    for base in BASES:
        _mount_at(app, predictions.blueprint, f"{base}/predictions")
        _mount_at(app, deliveries.blueprint, f"{base}/predictions")
        _mount_at(app, predictions.blueprint, f"{base}/jobs")
        _mount_at(app, deliveries.blueprint, f"{base}/jobs")
        _mount_at(app, models.blueprint, base)
        _mount_at(app, colors.blueprint, f"{base}/models")
        _mount_at(app, overview.blueprint, f"{base}/overview")
        _mount_at(app, workers.blueprint, f"{base}/workers")
        _mount_at(app, files.blueprint, f"{base}/files")
        _mount_at(app, stream.blueprint, f"{base}/streams")
        _mount_at(app, preview.blueprint, f"{base}/previews")
        _mount_at(app, dead_letters.blueprint, f"{base}/dead-letters")
    _mount_at(app, health.blueprint, "")
    _mount_at(app, openapi.blueprint, "")
    _mount_at(app, docs.blueprint, "")
    _mount_at(app, studio.blueprint, "")


def _mount_at(app: Flask, views: Blueprint, prefix: str) -> None:
    """Mount a blueprint once more; its first address keeps the plain endpoint names."""
    name = views.name if views.name not in app.blueprints else f"{views.name}@{prefix or '/'}".replace(".", "_")
    app.register_blueprint(views, url_prefix=prefix, name=name)


def _name_request() -> None:
    """Keep the caller's name for this request if it is a harmless one, so that both sides' logs can be matched."""
    given = request.headers.get(REQUEST_ID_HEADER, "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    logs.REQUEST_ID.set(g.request_id)


def _check_sizes(settings: Settings) -> None:
    check_sizes(request, body_max_bytes=settings.body_max_bytes, header_max_bytes=settings.header_max_bytes)


def _show_request_name(response: Response) -> Response:
    response.headers[REQUEST_ID_HEADER] = g.request_id
    return response
