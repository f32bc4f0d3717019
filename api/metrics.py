"""What Prometheus scrapes at `/metrics`: this API's own counts, and the state of the jobs as Redis has it."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable, Mapping, Sequence

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from api.auth import is_local
from api.context import Context, context
from api.responses import json_response
from shared import metrics
from shared.census import Census
from shared.errors import StoreUnavailable, Unauthenticated
from shared.metrics import HTTP_DURATION, REGISTRY, State
from shared.worker_registry import WorkerInfo

blueprint = Blueprint("metrics", __name__)

SCHEME = "bearer"

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "QUERY", "PATCH"})
"""Methods that are told by name. A caller can make up as many as he likes, and each would be kept for ever."""


@blueprint.get("/metrics")
def get_metrics() -> Response:
    """Show all figures in the format that the scraper asks for."""
    parts = context()
    _admit(parts)
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    registry = CollectorRegistry()
    if parts.settings.metrics_dir is None:
        registry.register(REGISTRY)
    else:
        MultiProcessCollector(registry, path=str(parts.settings.metrics_dir))  # type: ignore[no-untyped-call]
    registry.register(StateCollector(parts))
    return Response(encode(registry), content_type=content_type)


@blueprint.get("/metrics/jobs/<owner>/<name>")
def get_jobs(owner: str, name: str) -> Response:
    """Count one model's jobs and workers now, as JSON: for autoscalers, which follow `unfinished`."""
    parts = context()
    _admit(parts)
    slug = parts.catalog.by_slug(f"{owner}/{name}").slug
    found = parts.store.census([slug]).models[slug]
    return json_response(
        {
            "waiting": found.unfinished - found.running,
            "running": found.running,
            "unfinished": found.unfinished,
            "workers": found.workers,
        }
    )


def _admit(parts: Context) -> None:
    """Raises Unauthenticated for whoever is neither on this machine nor the scraper with the token."""
    token = parts.settings.metrics_token
    if token is None:
        if is_local(request):
            return
        raise Unauthenticated("metrics are for this machine only until GRANULE_METRICS_TOKEN is set", field="Authorization")
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != SCHEME or not hmac.compare_digest(given.strip().encode(), token.get_secret_value().encode()):
        raise Unauthenticated("send the scraper's token: Authorization: Bearer <token>", field="Authorization")


class StateCollector(Collector):
    """Reads the states of `shared.metrics` from Redis. While it does not answer, all that is told is that."""

    def __init__(self, parts: Context) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        """Yield every state."""
        try:
            census = self._parts.store.census([manifest.slug for manifest in self._parts.catalog.models])
            workers = self._parts.workers.alive()
        except StoreUnavailable:
            yield _family(metrics.REDIS_UP, {(): 0})
            return
        yield _family(metrics.REDIS_UP, {(): 1})
        yield from _of_models(census)
        yield from _of_workers(workers)
        yield _family(metrics.JOBS_CREATED, {(model,): count for model, count in census.created.items()})
        yield _family(metrics.JOBS_ENDED, census.ended)
        yield _family(metrics.ATTEMPTS_LOST, census.lost)
        yield _family(metrics.DELIVERIES_PENDING, {(): census.pending_deliveries})
        yield _family(metrics.DEAD_LETTERS, {("deliveries",): census.dead_deliveries, ("jobs",): census.dead_jobs})


def _of_models(census: Census) -> Iterable[Metric]:
    models = census.models.items()
    lines = [((model, lane), line) for model, found in models for lane, line in found.lines.items()]
    yield _family(metrics.JOBS_WAITING, {labels: line.depth for labels, line in lines})
    yield _family(metrics.JOBS_WAITING_AGE, {labels: line.age_s for labels, line in lines})
    yield _family(metrics.JOBS_RUNNING, {(model,): found.running for model, found in models})
    yield _family(metrics.JOBS_UNFINISHED, {(model,): found.unfinished for model, found in models})
    yield _family(metrics.WORKERS_READY, {(model,): found.workers for model, found in models})


def _of_workers(workers: Sequence[WorkerInfo]) -> Iterable[Metric]:
    named = {(worker.model, worker.name): worker for worker in workers}
    duties: dict[tuple[str, ...], float] = {labels: worker.duty for labels, worker in named.items() if worker.duty is not None}
    yield _family(metrics.GPU_DUTY, duties)
    yield _family(metrics.RENDER_BUSY, {labels: worker.busy_s for labels, worker in named.items()})
    yield _family(metrics.RENDER_STARVED, {labels: worker.starved_s for labels, worker in named.items()})


def _family(state: State, values: Mapping[tuple[str, ...], float]) -> Metric:
    kind = GaugeMetricFamily if state.kind == "gauge" else CounterMetricFamily
    family = kind(state.name, state.help, labels=state.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def register_metrics(app: Flask) -> None:
    """Have every request of an app timed, and mount `/metrics`."""
    app.before_request(_start_clock)
    app.after_request(_observe)
    app.register_blueprint(blueprint)


def _start_clock() -> None:
    g.started_s = time.monotonic()


def _observe(response: Response) -> Response:
    # The same view is mounted under several addresses; what follows "@" tells them apart.
    mounted, _, view = (request.endpoint or "none").rpartition(".")
    name = f"{mounted.partition('@')[0]}.{view}".lstrip(".")
    method = request.method if request.method in METHODS else "other"
    HTTP_DURATION.labels(name, method, response.status_code).observe(time.monotonic() - g.started_s)
    return response
