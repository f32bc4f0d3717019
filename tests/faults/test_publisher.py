"""Faults while one picture is on its way to the storage and the next one is drawn: one worker, two places in its spool."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from shared.jobs import Job, Status
from tests.faults.conftest import QUICK, Figure, violations
from tests.faults.proxy import Mode
from tests.faults.system import System, running
from tests.integration.processes import wait_until

STEPS = 5
GRACE_S = 20


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system whose uploads may take a minute, and whose only worker two pictures are left to.

    The grace is longer than the gap between two tries of an upload.
    """
    with running(tmp_path_factory.mktemp("lone"), **QUICK | {"publish_limit_s": 60, "grace_s": GRACE_S}) as system:
        yield system


@pytest.fixture
def system(lone: System) -> Iterator[System]:
    lone.heal(guardians=1)
    yield lone
    lone.heal(guardians=1)
    assert violations(lone) == []


def two_held(system: System, mode: Mode, drawn: str = "0.6 s a step") -> tuple[str, str]:
    """Ids of a job that cannot be uploaded and of one that is drawn meanwhile, by the same worker."""
    system.s3_proxy.set_mode(mode)
    stuck = system.order("0.02 s a step", webhook=True)
    wait_until(lambda: system.store.get(stuck).step == STEPS)
    second = system.order(drawn, webhook=True)
    # Not its status: a job that kills its worker runs for a few milliseconds.
    wait_until(lambda: system.store.get(second).fence >= 1)
    return stuck, second


def outcome(job: Job) -> tuple[Status, int, int]:
    return job.status, job.fence, job.crashes


def test_30_a_worker_killed_with_two_jobs(system: System, figure: Figure) -> None:
    jobs = two_held(system, Mode.ANSWER_503)
    system.worker_of(system.guardians[0]).kill()
    killed_s = time.monotonic()
    wait_until(lambda: all(system.store.get(job_id).status is Status.QUEUED for job_id in jobs))
    figure("both given back after", time.monotonic() - killed_s, 1.0)
    system.s3_proxy.set_mode(Mode.FORWARD)
    assert [outcome(job) for job in system.ended(*jobs)] == [(Status.SUCCEEDED, 2, 1)] * 2


def test_31_a_job_canceled_while_it_cannot_be_uploaded(system: System, figure: Figure) -> None:
    stuck, second = two_held(system, Mode.ANSWER_503)
    assert system.cancel(stuck) == "processing"
    asked_s = time.monotonic()
    [canceled] = system.ended(stuck)
    figure("canceled at the next try after", time.monotonic() - asked_s, 10.0, noise=1)
    assert canceled.status is Status.CANCELED and system.store.get(second).fence == 1
    system.s3_proxy.set_mode(Mode.FORWARD)
    assert outcome(system.ended(second)[0]) == (Status.SUCCEEDED, 1, 0)
    assert system.storage.keys(f"outputs/{stuck}/") == []


@pytest.mark.long
def test_32_sigterm_while_the_storage_hangs(system: System, figure: Figure) -> None:
    jobs = two_held(system, Mode.SWALLOW)
    guardian = system.guardians[0]
    guardian.send_signal(signal.SIGTERM)
    stopped_s = time.monotonic()
    assert guardian.wait(timeout=60) == 0
    figure(f"both handed back after the grace of {GRACE_S} s and", time.monotonic() - stopped_s - GRACE_S, 2.0)
    assert {outcome(system.store.get(job_id)) for job_id in jobs} == {(Status.QUEUED, 1, 0)}
    system.heal(guardians=1)
    assert {outcome(job) for job in system.ended(*jobs)} == {(Status.SUCCEEDED, 2, 0)}


def test_33_a_stopping_worker_waits_for_its_publisher(system: System) -> None:
    stuck, second = two_held(system, Mode.ANSWER_503, "0.1 s a step")
    system.guardians[0].send_signal(signal.SIGTERM)
    time.sleep(0.5)
    system.s3_proxy.set_mode(Mode.FORWARD)
    assert system.guardians[0].wait(timeout=60) == 0
    assert {outcome(system.store.get(job_id)) for job_id in (stuck, second)} == {(Status.SUCCEEDED, 1, 0)}


@pytest.mark.long
def test_34_no_job_is_claimed_while_the_spool_is_full(system: System, figure: Figure) -> None:
    jobs = two_held(system, Mode.ANSWER_503, "0.02 s a step")
    third = system.order("0.02 s a step")
    time.sleep(2)
    assert system.store.get(third).status is Status.QUEUED
    system.s3_proxy.set_mode(Mode.FORWARD)
    back_s = time.monotonic()
    assert {outcome(job) for job in system.ended(*jobs, third)} == {(Status.SUCCEEDED, 1, 0)}
    figure("all done after its return", time.monotonic() - back_s, 16.0, noise=1)


def test_35_poison_beside_a_picture_on_its_way(system: System) -> None:
    stuck, poison = two_held(system, Mode.ANSWER_503, "poison")
    wait_until(lambda: system.store.get(poison).crashes >= 1)
    system.s3_proxy.set_mode(Mode.FORWARD)
    [innocent, guilty] = system.ended(stuck, poison, timeout_s=90)
    assert (innocent.status, innocent.crashes) == (Status.SUCCEEDED, 1)
    assert (guilty.status, guilty.crashes) == (Status.FAILED, 3)


@pytest.mark.long
def test_36_a_worker_whose_device_broke_charges_nobody_else(system: System) -> None:
    stuck, broken = two_held(system, Mode.ANSWER_503, "broken device")
    wait_until(lambda: system.store.get(broken).crashes >= 1)
    system.s3_proxy.set_mode(Mode.FORWARD)
    [innocent, guilty] = system.ended(stuck, broken, timeout_s=90)
    assert (innocent.status, innocent.crashes) == (Status.SUCCEEDED, 0)
    assert (guilty.status, guilty.crashes) == (Status.FAILED, 3)


@pytest.mark.long
def test_37_a_storage_that_hangs_for_longer_than_a_step_may_take(system: System) -> None:
    stuck, second = two_held(system, Mode.SWALLOW, "0.02 s a step")
    time.sleep(30)
    system.s3_proxy.set_mode(Mode.FORWARD)
    assert {outcome(job) for job in system.ended(stuck, second)} == {(Status.SUCCEEDED, 1, 0)}
