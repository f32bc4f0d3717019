"""What the views work with: the parts that `create_app` put together, reached through the current application."""

from __future__ import annotations

import re
from dataclasses import dataclass
from threading import BoundedSemaphore, Semaphore
from typing import Protocol, cast
from urllib.parse import quote

from flask import current_app, g, request

from api.auth import Tokens
from api.limits import OrderLimits
from api.places import Places
from api.readiness import Probe
from api.tokens import Scope
from shared.errors import InputInvalid
from shared.floor import Floor
from shared.job_store import JobStore
from shared.jobs import Lane
from shared.manifest import Catalog
from shared.outbox import Outbox
from shared.settings import Settings
from shared.storage import Storage
from shared.tracing import Tracer
from shared.worker_registry import WorkerRegistry

EXTENSION = "granule"

HOST = re.compile(r"(?:[a-z0-9._-]{1,255}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?")

READING = frozenset({"GET", "HEAD", "OPTIONS", "QUERY"})
"""Methods that change nothing, for which a token that may only read is enough."""


class Enqueue(Protocol):
    """Tells a model's workers about a job. Raises StoreUnavailable when no message could be sent."""

    def __call__(self, job_id: str, *, model: str, lane: Lane) -> None:
        """Send the message."""


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of one application. `streams`, `holds` and `reads` count what this process may still hold open."""

    settings: Settings
    store: JobStore
    floor: Floor
    outbox: Outbox
    enqueue: Enqueue
    storage: Storage
    catalog: Catalog
    workers: WorkerRegistry
    tokens: Tokens
    limits: OrderLimits
    streams: BoundedSemaphore
    holds: Semaphore
    reads: Places
    probe: Probe
    tracer: Tracer


def context() -> Context:
    """Return the parts of the application that serves this request."""
    return cast(Context, current_app.extensions[EXTENSION])


def base_url() -> str:
    """Return the start of every URL that is handed out, without a slash at its end.

    Raises:
        InputInvalid: it would be made of the request's Host, and that is no host.
    """
    if public_url := context().settings.public_url:
        return public_url.rstrip("/")
    # Not `request.root_url`: it has no host at all where the name has an underscore, as the services of a compose file may.
    host = request.headers.get("Host", request.host).lower()
    if not HOST.fullmatch(host):
        raise InputInvalid("Host is a name or an address, and a port", field="Host")
    return f"{request.scheme}://{host}{quote(request.root_path)}".rstrip("/")


def authenticate() -> None:
    """Put the caller's token into `g.token` and its tenant into `g.tenant`, before a view that is not public.

    Raises:
        Unauthenticated: there is no token, or an unknown one.
        Forbidden: the token is not for requests of this kind.
    """
    token = context().tokens.token_of(request)
    token.require(Scope.READ if request.method in READING else Scope.CREATE)
    g.token, g.tenant = token, token.tenant
