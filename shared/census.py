"""How many jobs there are, of which model and in which state: what `shared/lua/census.lua` counts in one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.jobs import Lane

SEPARATOR = "|"
"""Between the parts of a counter's field in Redis; no model, status or error code has it."""


@dataclass(frozen=True, slots=True)
class Line:
    """The jobs that wait in one lane: how many, and for how long the first of them has (0 when there is none)."""

    depth: int
    age_s: float


@dataclass(frozen=True, slots=True)
class ModelCensus:
    """The jobs and the ready workers of one model at one moment."""

    running: int
    workers: int
    lines: Mapping[Lane, Line]

    @property
    def unfinished(self) -> int:
        """Waiting and running jobs."""
        return self.running + sum(line.depth for line in self.lines.values())


@dataclass(frozen=True, slots=True)
class Census:
    """Everything at one moment.

    `ended` counts by (model, status, reason), `lost` the attempts that were lost by (model, who noticed), both since the
    records began.
    """

    models: Mapping[str, ModelCensus]
    created: Mapping[str, int]
    ended: Mapping[tuple[str, ...], int]
    lost: Mapping[tuple[str, ...], int]
    dead_jobs: int
    dead_deliveries: int
    pending_deliveries: int


def read_census(models: Sequence[str], reply: list[Any]) -> Census:
    """Read what the script returns for these models."""
    counted, ended, lost, runs, dead_jobs, dead_deliveries, pending = reply
    return Census(
        models={model: _read_model(numbers) for model, numbers in zip(models, counted, strict=True)},
        created={model: int(count) for model, count in _pairs(runs).items()},
        ended={tuple(name.split(SEPARATOR)): int(count) for name, count in _pairs(ended).items()},
        lost={tuple(name.split(SEPARATOR)): int(count) for name, count in _pairs(lost).items()},
        dead_jobs=dead_jobs,
        dead_deliveries=dead_deliveries,
        pending_deliveries=pending,
    )


def _read_model(numbers: Sequence[int]) -> ModelCensus:
    running, workers, *lanes = numbers
    lines = {lane: Line(depth, age_ms / 1000) for lane, depth, age_ms in zip(Lane, lanes[::2], lanes[1::2], strict=True)}
    return ModelCensus(running, workers, lines)


def _pairs(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
