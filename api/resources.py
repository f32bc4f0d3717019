"""The shapes of everything that the API answers with beside predictions. Replicate's, where Replicate has them."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from api.tokens import LaneOfCaller, Scope
from shared.jobs import Event
from shared.outbox import DeliveryState
from shared.wire import Prediction


class PredictionPage(TypedDict):
    """Up to 100 predictions, newest first, with the absolute addresses of the pages around them."""

    previous: str | None
    next: str | None
    results: list[Prediction]


class Version(TypedDict):
    """One version of a model. `openapi_schema` describes its input and output."""

    id: str
    created_at: str
    cog_version: str
    openapi_schema: dict[str, Any]


class Model(TypedDict):
    """One model. `run_count` is how many predictions were ever recorded for it here."""

    url: str
    owner: str
    name: str
    description: str
    visibility: Literal["public", "private"]
    run_count: int
    default_example: Prediction | None
    latest_version: Version


class ModelPage(TypedDict):
    """All models."""

    previous: str | None
    next: str | None
    results: list[Model]


class VersionPage(TypedDict):
    """All versions of a model."""

    previous: str | None
    next: str | None
    results: list[Version]


class Account(TypedDict):
    """The owner of a token, or of a model."""

    type: Literal["user", "organization"]
    username: str
    name: str


class Allowance(TypedDict):
    """What a token may do; a number that is null has no bound. `creates_remaining` is of this minute."""

    name: str
    scopes: list[Scope]
    lanes: list[LaneOfCaller]
    max_waiting_jobs: int | None
    creates_per_minute: int | None
    creates_remaining: int | None


class Caller(Account):
    """The account that a request was made with, and its token."""

    token: Allowance


class Configuration(TypedDict):
    """What a deployment runs on: the device, and how many live workers there are (smallest and largest number are the same)."""

    hardware: str
    min_instances: int
    max_instances: int


class Release(TypedDict):
    """The one release of a deployment."""

    number: int
    model: str
    version: str
    created_at: str
    created_by: Account
    configuration: Configuration


class Deployment(TypedDict):
    """A model under its second address."""

    owner: str
    name: str
    current_release: Release


class DeploymentPage(TypedDict):
    """All deployments."""

    previous: str | None
    next: str | None
    results: list[Deployment]


class Hardware(TypedDict):
    """A device that some live worker draws on."""

    sku: str
    name: str


class WebhookSecret(TypedDict):
    """The secret that webhooks are signed with: `whsec_` and base64."""

    key: str


class Try(TypedDict):
    """One try of a delivery and what came of it."""

    tried_at: str
    note: str


class DeliveryResource(TypedDict):
    """One webhook message. `id` is its `webhook-id`, `number` its place among the prediction's messages, from 1; `attempts`
    counts the tries since it was last set off, and `tries` has the last twenty of all.
    """

    id: str
    prediction: str
    number: int
    event: Event
    url: str
    state: DeliveryState
    attempts: int
    created_at: str
    tries: list[Try]


class DeliveryPage(TypedDict):
    """All webhook messages of a prediction."""

    previous: str | None
    next: str | None
    results: list[DeliveryResource]


class DeadLetters(TypedDict):
    """Webhook messages that were given up, and ids of predictions whose workers died over them; of each how many there are."""

    delivery_count: int
    deliveries: list[DeliveryResource]
    prediction_count: int
    predictions: list[str]


class Redelivered(TypedDict):
    """How many webhook messages will be sent again."""

    redelivered: int


class Health(TypedDict):
    """The process serves requests."""

    status: Literal["ok"]


class Readiness(TypedDict):
    """Whether an order would be drawn now. `redis` and `storage` are "ok" or say what is wrong; `workers` counts live ones."""

    ready: bool
    redis: str
    storage: str
    workers: dict[str, int]
