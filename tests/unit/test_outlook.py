from __future__ import annotations

from dataclasses import replace

import pytest

from shared.jobs import Job, Status
from shared.outlook import Traffic, outlook
from tests.contracts.jobs import new_spec

NOW_MS = 1_763_800_000_000
QUEUED = Job(spec=new_spec(), status=Status.QUEUED, created_ms=NOW_MS, seq=1)


def traffic(workers: int, *ages_s: float, mean_s: float | None = 10.0) -> Traffic:
    begun_ms = [NOW_MS - int(1000 * age_s) for age_s in ages_s]
    return Traffic(NOW_MS, None if mean_s is None else int(1000 * mean_s), workers, begun_ms)


@pytest.mark.parametrize(
    ("position", "around", "eta_s"),
    [
        (0, traffic(1), 10),
        (1, traffic(1), 20),
        (0, traffic(1, 4), 16),  # the one worker has six seconds to go
        (1, traffic(1, 4), 26),
        (0, traffic(2, 4), 10),  # the other one is idle
        (1, traffic(2, 4), 16),
        (2, traffic(2, 4), 20),
        (3, traffic(2, 4), 26),
        (0, traffic(1, 60), 10),  # one that should have ended long ago is taken to end now
        (0, traffic(1, 2, 5), 18),  # the job begun first is drawn already, and only published
        (10_000, traffic(2), 50_010),
    ],
)
def test_a_waiting_job_ends_after_those_before_it(position: int, around: Traffic, eta_s: float) -> None:
    told = outlook(QUEUED, position, around)
    assert (told.queue_position, told.eta_s, told.queue_note) == (position, eta_s, None)


@pytest.mark.parametrize(("age_s", "step", "eta_s"), [(0, 0, 10), (4, 8, 6), (9, 2, 9), (30, 10, 5), (30, 20, 0)])
def test_a_running_job_is_judged_by_its_steps_when_it_is_slow(age_s: int, step: int, eta_s: float) -> None:
    running = replace(QUEUED, status=Status.RUNNING, started_ms=NOW_MS - 1000 * age_s, step=step)
    assert outlook(running, None, traffic(1, age_s)).eta_s == pytest.approx(eta_s)


def test_what_is_not_known_is_not_said() -> None:
    assert outlook(QUEUED, 3, traffic(1, mean_s=None)).eta_s is None
    nobody = outlook(QUEUED, 3, traffic(0))
    assert (nobody.queue_position, nobody.eta_s) == (3, None)
    assert nobody.queue_note is not None and QUEUED.spec.model in nobody.queue_note
    running = replace(QUEUED, status=Status.RUNNING, started_ms=NOW_MS)
    assert outlook(running, None, traffic(0)).queue_note is None
