"""Everything that is measured, in one list: each instrument with its unit in the name, its labels and its meaning.

Instruments are declared as loggers are, once for a process and connected to nothing. `REGISTRY` holds what this process counts:
API processes show it at `/metrics`, couriers and render workers on a port of their own. `STATES` are read from Redis
whenever somebody asks: they are the same whichever API process answers, and no restart resets them.

No label has a tenant, a prompt or a job in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

REGISTRY = CollectorRegistry()

JOB_PHASE = Histogram(
    "granule_job_phase_seconds",
    "What jobs spend their time with: queued (in line, until it is claimed), claimed (until the pipeline takes it), denoise "
    "(in the pipeline, decoding included), publish (pixels until the outcome is recorded). Exposed by render workers.",
    ["model", "phase"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 900, 3600),
    registry=REGISTRY,
)
DENOISE_STEPS = Counter(
    "granule_denoise_steps",
    "Denoising steps made. Exposed by render workers.",
    ["model"],
    registry=REGISTRY,
)
GPU_MEMORY = Gauge(
    "granule_gpu_memory_bytes",
    "Memory of the render worker's GPU: peak (most that this process had allocated at once), free and total (of the device).",
    ["kind"],
    registry=REGISTRY,
)
COMPOSITION_ERROR = Histogram(
    "granule_composition_error_ratio",
    "How far the measured shares of a picture lie from the ordered ones: total variation, 0 to 1. Exposed by render workers.",
    ["model"],
    buckets=(0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1),
    registry=REGISTRY,
)
REDIS_ERRORS = Counter(
    "granule_redis_errors",
    "Calls to the job store that failed: unreachable (no answer in time) or refused (full, read-only, loading).",
    ["kind"],
    registry=REGISTRY,
)
S3_ERRORS = Counter(
    "granule_s3_errors",
    "Calls to the object storage that failed after its client's own retries: unreachable or refused.",
    ["kind"],
    registry=REGISTRY,
)
DELIVERY_TRIES = Counter(
    "granule_delivery_tries",
    "Tries of webhook messages by what came of them: delivered, pending (to be tried again) or dead. Exposed by couriers.",
    ["outcome"],
    registry=REGISTRY,
)
DELIVERY_DURATION = Histogram(
    "granule_delivery_try_seconds",
    "How long one try of a webhook message takes. Exposed by couriers.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
SWEEP_LOOKS = Counter(
    "granule_sweep_looks",
    "Looks of the sweep by what was looked for and how it ended: done, away (a server did not answer) or error. "
    "Exposed by couriers.",
    ["look", "result"],
    registry=REGISTRY,
)
MESSAGES_REPUBLISHED = Counter(
    "granule_messages_republished",
    "Waiting jobs whose Celery message was lost and sent again. Exposed by couriers.",
    ["model"],
    registry=REGISTRY,
)
HTTP_DURATION = Histogram(
    "granule_http_request_seconds",
    "Time from a request's arrival to its answer's first byte, by view. Exposed by the API.",
    ["view", "method", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
    registry=REGISTRY,
)


@dataclass(frozen=True, slots=True)
class State:
    """A figure that is read from Redis when it is asked for; a counter's name is given without its `_total`."""

    kind: Literal["gauge", "counter"]
    name: str
    help: str
    labels: tuple[str, ...] = ()


REDIS_UP = State("gauge", "granule_redis_up", "1 when the job store answered this scrape; without it no other state is shown.")
JOBS_WAITING = State("gauge", "granule_jobs_waiting", "Jobs that wait for a worker.", ("model", "lane"))
JOBS_WAITING_AGE = State(
    "gauge",
    "granule_jobs_waiting_age_seconds",
    "Time since the first job in line was ordered; 0 when none waits.",
    ("model", "lane"),
)
JOBS_RUNNING = State("gauge", "granule_jobs_running", "Jobs that a worker holds.", ("model",))
JOBS_UNFINISHED = State(
    "gauge",
    "granule_jobs_unfinished",
    "Waiting and running jobs together: how many workers could be busy. Autoscalers follow this one.",
    ("model",),
)
JOBS_CREATED = State("counter", "granule_jobs_created", "Jobs recorded.", ("model",))
JOBS_ENDED = State(
    "counter",
    "granule_jobs_ended",
    "Jobs that ended: succeeded (rendered, or reused: answered with a stored picture), failed (the error's code), canceled "
    "(by its owner, or deadline_passed).",
    ("model", "status", "reason"),
)
ATTEMPTS_LOST = State(
    "counter",
    "granule_attempts_lost",
    "Attempts whose worker died or froze, by who noticed: its guardian, or the sweep when the lease had expired.",
    ("model", "noticed_by"),
)
WORKERS_READY = State("gauge", "granule_workers_ready", "Render workers that show signs of life and are ready.", ("model",))
GPU_DUTY = State(
    "gauge",
    "granule_gpu_duty_ratio",
    "Of the time in which there was something to draw since the worker's start, the share spent drawing, 0 to 1.",
    ("model", "worker"),
)
RENDER_BUSY = State(
    "counter", "granule_render_busy_seconds", "Time that a live render worker spent drawing.", ("model", "worker")
)
RENDER_STARVED = State(
    "counter",
    "granule_render_starved_seconds",
    "Time that a live render worker did not draw although a job waited.",
    ("model", "worker"),
)
DELIVERIES_PENDING = State("gauge", "granule_deliveries_pending", "Webhook messages to be tried, for the first time or again.")
DEAD_LETTERS = State(
    "gauge", "granule_dead_letters", "What was given up and waits for an operator: deliveries, and jobs.", ("kind",)
)

STATES = (
    REDIS_UP, JOBS_WAITING, JOBS_WAITING_AGE, JOBS_RUNNING, JOBS_UNFINISHED, JOBS_CREATED, JOBS_ENDED, ATTEMPTS_LOST,
    WORKERS_READY, GPU_DUTY, RENDER_BUSY, RENDER_STARVED, DELIVERIES_PENDING, DEAD_LETTERS,
)  # fmt: skip


INSTRUMENTS: tuple[MetricWrapperBase, ...] = (
    JOB_PHASE, DENOISE_STEPS, GPU_MEMORY, COMPOSITION_ERROR, REDIS_ERRORS, S3_ERRORS, DELIVERY_TRIES, DELIVERY_DURATION,
    SWEEP_LOOKS, MESSAGES_REPUBLISHED, HTTP_DURATION,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Described:
    """One line of the manual: the name as it is scraped, its kind, its labels, its meaning."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


def describe() -> list[Described]:
    """Everything that can be scraped, by name."""
    found = [Described(_scraped(state.name, state.kind), state.kind, state.labels, state.help) for state in STATES]
    for instrument in INSTRUMENTS:
        [family] = instrument.describe()
        labels = tuple(instrument._labelnames)
        found.append(Described(_scraped(family.name, family.type), family.type, labels, family.documentation))
    return sorted(found, key=lambda line: line.name)


def _scraped(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name
