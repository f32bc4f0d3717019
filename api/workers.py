"""Workers, for operators: drain one and resume it. Which there are stands in the overview."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, Response, g

from api.context import authenticate, context
from api.resources import State, WorkerState
from api.responses import json_response
from api.tokens import Scope
from shared.errors import NotFound
from shared.floor import Running
from shared.worker_registry import Standing, WorkerInfo

blueprint = Blueprint("workers", __name__)

STATES: dict[Standing, State] = {
    Standing.STARTING: "starting",
    Standing.DRAINING: "draining",
    Standing.DRAINED: "drained",
}
"""Of those that take no jobs; one that does is idle or busy."""


@blueprint.before_request
def authenticate_operator() -> None:
    """Let operators in only. Raises Unauthenticated and Forbidden."""
    authenticate()
    g.token.require(Scope.ADMIN)


@blueprint.post("/<worker>/drain")
def drain_worker(worker: str) -> Response:
    """Have a worker end what it holds and take nothing more.

    Its process then ends, so that its GPU is free, and none is started in its place until it is resumed.
    """
    context().workers.drain(worker)
    return _answer(worker)


@blueprint.post("/<worker>/resume")
def resume_worker(worker: str) -> Response:
    """Have a drained worker take jobs again: it loads its model first."""
    context().workers.resume(worker)
    return _answer(worker)


def describe_worker(info: WorkerInfo, running: Sequence[Running]) -> WorkerState:
    """Return what operators see of a worker; `running` are the jobs that workers hold."""
    held = next((job.id for job in running if job.worker == info.name), None)
    state: State = STATES.get(info.standing) or ("busy" if held else "idle")
    return {
        "name": info.name,
        "model": info.model,
        "device": info.device,
        "state": state,
        "prediction": held,
        "silence_s": round(info.silence_s, 1),
        "duty": None if info.duty is None else round(info.duty, 3),
        "memory": None
        if info.memory is None
        else {
            "free_bytes": info.memory.free_bytes,
            "total_bytes": info.memory.total_bytes,
            "peak_bytes": info.memory.peak_bytes,
        },
    }


def _answer(name: str) -> Response:
    parts = context()
    info = next((info for info in parts.workers.everybody() if info.name == name), None)
    if info is None:
        raise NotFound(f"no worker {name!r} shows itself", field="worker")
    return json_response(describe_worker(info, parts.floor.running([info.model])))
