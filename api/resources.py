"""The shapes of everything that the API answers with beside predictions. Replicate's, where Replicate has them."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from api.tokens import LaneOfCaller, Scope
from shared.jobs import Event, Lane
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
    max_candidates: int


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


class PaletteColor(TypedDict):
    """A colour that a tile can be ordered in. `srgb` is the median of its granules on a photo, as `#RRGGBB`; `spellings` are
    folded: lower case, ё as е, without spaces, hyphens and underscores. `near` are folded words that it may be offered for.
    """

    code: str
    name: str
    name_ru: str
    srgb: str
    spellings: list[str]
    near: list[str]


class WaitingJob(TypedDict):
    """A prediction that waits."""

    prediction: str
    tenant: str
    waited_s: float


class QueueLine(TypedDict):
    """One lane of one model: how many predictions wait in it, how long the one served next has waited, and the first ten."""

    model: str
    lane: Lane
    waiting: int
    oldest_s: float | None
    next: list[WaitingJob]


class RunningJob(TypedDict):
    """A prediction that is being drawn."""

    prediction: str
    tenant: str
    model: str
    worker: str
    step: int
    steps: int
    running_s: float


State = Literal["idle", "busy", "starting", "draining", "drained"]


class Memory(TypedDict):
    """Of a worker's GPU, in bytes, as of its last picture: what is free, what there is, the most that the worker ever took."""

    free_bytes: int
    total_bytes: int
    peak_bytes: int


class WorkerState(TypedDict):
    """A render worker: what it draws now, if anything, how long ago it last showed itself, and `duty`, the part (0 to 1) of
    the time with something to draw that it drew; null before its first job. `starting` (its model is being loaded),
    `draining` and `drained` ones take no jobs. `device` is empty until it is known.
    """

    name: str
    model: str
    device: str
    state: State
    prediction: str | None
    silence_s: float
    duty: float | None
    memory: Memory | None


class Spread(TypedDict):
    """Half of the durations are at most `p50_s` seconds, and 95 in 100 at most `p95_s`; null where there were none."""

    p50_s: float | None
    p95_s: float | None


class ModelHour(TypedDict):
    """A model's last hour: predictions by how they ended, how long they waited, were drawn and took in all, and `busy`, the
    part of the hour, from 0 to 1, that one of its live workers had work on average; null without a worker.
    """

    model: str
    succeeded: int
    failed: int
    canceled: int
    wait: Spread
    draw: Spread
    total: Spread
    busy: float | None


class FailureCount(TypedDict):
    """How many predictions failed in the last hour for one reason."""

    code: str
    count: int


class Overview(TypedDict):
    """Everything at a glance. `per_minute` counts what ended in each of the last 60 minutes, the earliest first; `totals` are
    the times from order to picture in each five of them. The figures of `totals`, `models` and `failures` are of the latest
    2000 predictions where the hour had more.
    """

    queues: list[QueueLine]
    running: list[RunningJob]
    workers: list[WorkerState]
    models: list[ModelHour]
    per_minute: list[int]
    totals: list[Spread]
    failures: list[FailureCount]
    deliveries_pending: int
    deliveries_dead: int
    predictions_dead: int
