"""What the views work with: the parts that `create_app` put together, reached through the current application."""

from __future__ import annotations

from dataclasses import dataclass
from threading import BoundedSemaphore, Semaphore
from typing import Protocol, cast

from flask import current_app, g, request

from api.auth import Tokens
from api.limits import OrderLimits
from api.tokens import Scope
from shared.floor import Floor
from shared.job_store import JobStore
from shared.jobs import Lane
from shared.manifest import Catalog
from shared.outbox import Outbox
from shared.settings import Settings
from shared.storage import Storage
from shared.worker_registry import WorkerRegistry

EXTENSION = "granule"

READING = frozenset({"GET", "HEAD", "OPTIONS", "QUERY"})
"""Methods that change nothing, for which a token that may only read is enough."""


class Enqueue(Protocol):
    """Tells a model's workers about a job. Raises StoreUnavailable when no message could be sent."""

    def __call__(self, job_id: str, *, model: str, lane: Lane) -> None:
        """Send the message."""


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of one application. `streams` and `holds` count what this process may still hold open."""

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


def context() -> Context:
    """Return the parts of the application that serves this request."""
    return cast(Context, current_app.extensions[EXTENSION])


def base_url() -> str:
    """Return the start of every URL that is handed out, without a slash at its end."""
    return (context().settings.public_url or request.root_url).rstrip("/")


def authenticate() -> None:
    """Put the caller's token into `g.token` and its tenant into `g.tenant`, before a view that is not public.

    Raises:
        Unauthenticated: there is no token, or an unknown one.
        Forbidden: the token is not for requests of this kind.
    """
    token = context().tokens.token_of(request)
    token.require(Scope.READ if request.method in READING else Scope.CREATE)
    g.token, g.tenant = token, token.tenant
