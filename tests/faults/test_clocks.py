"""Faults of time: a wrong wall clock, redelivery by age, a lease nobody came for, a call that holds the interpreter.

Settings as shipped.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from shared.jobs import Status
from tests.faults.conftest import Figure, violations
from tests.faults.system import System
from tests.integration.processes import wait_until

CLOCK = Path(__file__).resolve().parents[1] / "standin" / "clock"

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def test_03_worker_and_guardian_killed_while_messages_come_again_by_age(fresh: System, figure: Figure) -> None:
    fresh.processes.extra["STANDIN_VISIBILITY_TIMEOUT_S"] = "10"
    fresh.heal()
    job_id = fresh.order("6 s a step", webhook=True)
    fresh.kill(fresh.holder(job_id))
    figure("a peer starts the job after (lease 15 s)", fresh.claimed_again(job_id), 20.0, noise=2)
    [job] = fresh.ended(job_id, timeout_s=90)
    assert (job.status, job.fence) == (Status.SUCCEEDED, 2)
    assert violations(fresh) == []


def test_38_a_worker_dies_before_it_hears_of_its_claim(fresh: System, figure: Figure) -> None:
    fresh.processes.extra["STANDIN_DEAF_TO_CLAIMS"] = "1"
    fresh.heal(guardians=1)
    job_id = fresh.order("0.1 s a step", webhook=True)
    wait_until(lambda: fresh.store.get(job_id).fence == 1)
    began_ms = fresh.store.get(job_id).started_ms
    fresh.kill(fresh.guardians[0])
    del fresh.processes.extra["STANDIN_DEAF_TO_CLAIMS"]
    fresh.heal(guardians=1)
    [job] = fresh.ended(job_id)
    assert (job.status, job.fence, job.crashes) == (Status.SUCCEEDED, 2, 0)
    assert job.queued_ms is not None and began_ms is not None
    figure("given back after (lease 15 s)", (job.queued_ms - began_ms) / 1000, 15.0 + 2)
    assert violations(fresh) == []


def test_17_a_call_that_holds_the_interpreter(fresh: System, figure: Figure) -> None:
    fresh.heal()
    job_id = fresh.order("hold the interpreter, 5.2 s a step")
    [job] = fresh.ended(job_id, timeout_s=90)
    assert job.status is Status.SUCCEEDED
    figure("starts", job.fence, 1, unit="", noise=1)


@pytest.mark.parametrize("offset_s", [3600, -3600])
def test_29_a_worker_whose_clock_is_an_hour_wrong(fresh: System, figure: Figure, offset_s: int) -> None:
    fresh.heal(guardians=1)
    fresh.processes.extra |= {"STANDIN_CLOCK_OFFSET_S": str(offset_s), "PYTHONPATH": str(CLOCK)}
    fresh.heal(guardians=2)
    started_s = time.monotonic()
    jobs = fresh.ended(*(fresh.order("0.6 s a step", webhook=True) for _ in range(8)), timeout_s=60)
    figure("8 jobs of 3 s on 2 workers, one wrong", time.monotonic() - started_s, 15.0)
    assert {(job.status, job.fence) for job in jobs} == {(Status.SUCCEEDED, 1)}
    assert violations(fresh) == []
