"""Everything at a glance, for operators: lines, workers, and how the last hour went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from flask import Blueprint, Response, g

from api.context import authenticate, context
from api.resources import ModelHour, Overview, QueueLine, RunningJob, Spread, WaitingJob
from api.responses import json_response
from api.tokens import Scope
from api.workers import describe_worker
from shared.floor import Ended, Line, Running
from shared.jobs import Status
from shared.worker_registry import Standing

HOUR_S = 3600
MINUTES = 60
SPANS = 12
"""Parts of the hour whose times are told apart: five minutes each."""

blueprint = Blueprint("overview", __name__)


@blueprint.before_request
def authenticate_operator() -> None:
    """Let operators in only. Raises Unauthenticated and Forbidden."""
    authenticate()
    g.token.require(Scope.ADMIN)


@blueprint.get("")
def get_overview() -> Response:
    """Read what waits, what runs, which workers live, and how the last hour went, for all tenants."""
    parts = context()
    models = [manifest.slug for manifest in parts.catalog.models]
    now_ms = parts.floor.clock_ms()
    running = parts.floor.running(models)
    everybody = parts.workers.everybody()
    ended = parts.floor.ended(now_ms - HOUR_S * 1000)
    failures = Counter(job.error_code or "unknown" for job in ended if job.status is Status.FAILED)
    body: Overview = {
        "queues": [_line(line, now_ms) for line in parts.floor.lines(models)],
        "running": [_running(job, now_ms) for job in running],
        "workers": [describe_worker(worker, running) for worker in everybody],
        "models": [
            _hour(
                model,
                [job for job in ended if job.model == model],
                [job for job in running if job.model == model],
                sum(worker.model == model and worker.standing is Standing.READY for worker in everybody),
                now_ms,
            )
            for model in models
        ],
        "per_minute": parts.floor.ended_per_minute(now_ms, MINUTES),
        "totals": [_spread(totals) for totals in _by_span(ended, now_ms)],
        "failures": [{"code": code, "count": count} for code, count in failures.most_common()],
        "deliveries_pending": parts.floor.deliveries_pending(),
        "deliveries_dead": parts.outbox.dead(limit=1)[0],
        "predictions_dead": parts.store.dead(limit=1)[0],
    }
    return json_response(body)


def _line(line: Line, now_ms: int) -> QueueLine:
    waiting: list[WaitingJob] = [
        {"prediction": job.id, "tenant": job.tenant, "waited_s": _seconds(now_ms - job.created_ms)} for job in line.heads
    ]
    return {
        "model": line.model,
        "lane": line.lane,
        "waiting": line.depth,
        "oldest_s": waiting[0]["waited_s"] if waiting else None,
        "next": waiting,
    }


def _running(job: Running, now_ms: int) -> RunningJob:
    return {
        "prediction": job.id,
        "tenant": job.tenant,
        "model": job.model,
        "worker": job.worker,
        "step": job.step,
        "steps": job.steps,
        "running_s": _seconds(now_ms - job.started_ms),
    }


def _hour(model: str, ended: Sequence[Ended], running: Sequence[Running], workers: int, now_ms: int) -> ModelHour:
    begin_ms = now_ms - HOUR_S * 1000
    drawn = [job for job in ended if _is_drawn(job)]
    spans = [(max(begin_ms, job.started_ms or 0), job.completed_ms) for job in ended if job.started_ms and not job.reused]
    spans += [(max(begin_ms, job.started_ms), now_ms) for job in running]
    busy_s = sum(end_ms - start_ms for start_ms, end_ms in spans) / 1000
    statuses = Counter(job.status for job in ended)
    return {
        "model": model,
        "succeeded": statuses[Status.SUCCEEDED],
        "failed": statuses[Status.FAILED],
        "canceled": statuses[Status.CANCELED],
        "wait": _spread((job.started_ms or 0) - job.created_ms for job in drawn),
        "draw": _spread(job.completed_ms - (job.started_ms or 0) for job in drawn),
        "total": _spread(job.completed_ms - job.created_ms for job in drawn),
        "busy": round(min(1.0, busy_s / HOUR_S / workers), 3) if workers else None,
    }


def _is_drawn(job: Ended) -> bool:
    """Whether a picture was drawn for it: a stored one says nothing about the workers."""
    return job.status is Status.SUCCEEDED and job.started_ms is not None and not job.reused


def _by_span(ended: Sequence[Ended], now_ms: int) -> list[list[int]]:
    """Return how long drawn jobs took from order to picture, in ms, by the part of the hour that they ended in."""
    spans: list[list[int]] = [[] for _ in range(SPANS)]
    for job in ended:
        if _is_drawn(job):
            before = min(SPANS - 1, max(0, now_ms - job.completed_ms) * SPANS // (HOUR_S * 1000))
            spans[SPANS - 1 - before].append(job.completed_ms - job.created_ms)
    return spans


def _spread(durations_ms: Iterable[int]) -> Spread:
    ordered = sorted(durations_ms)
    if not ordered:
        return {"p50_s": None, "p95_s": None}
    return {"p50_s": _seconds(_rank(ordered, 0.5)), "p95_s": _seconds(_rank(ordered, 0.95))}


def _rank(ordered: Sequence[int], fraction: float) -> int:
    """The smallest value that at least this fraction of the values do not exceed."""
    return ordered[max(0, -int(-fraction * len(ordered) // 1) - 1)]


def _seconds(ms: float) -> float:
    return round(ms / 1000, 2)
