"""Faults of render workers and their guardians, with two workers and one courier."""

from __future__ import annotations

import signal
import time

import pytest

from shared.jobs import Status
from tests.faults.conftest import Figure
from tests.faults.system import System
from tests.integration.processes import wait_until

LEASE_S = 15.0


def test_01_kill_9_of_a_worker(system: System, figure: Figure) -> None:
    job_id = system.order("0.6 s a step", webhook=True)
    system.worker_of(system.holder(job_id)).kill()
    figure("a peer starts the job after", system.claimed_again(job_id), 1.0)
    [job] = system.ended(job_id)
    assert (job.status, job.fence, job.crashes) == (Status.SUCCEEDED, 2, 1)
    assert system.read(job_id) == "succeeded"


def test_04_a_frozen_worker(system: System, figure: Figure) -> None:
    job_id = system.order("0.6 s a step")
    system.worker_of(system.holder(job_id)).suspend()
    figure("taken over after (silence limit 5 s)", system.claimed_again(job_id), 5 + 2 + 2, noise=2)
    [job] = system.ended(job_id)
    assert (job.status, job.fence) == (Status.SUCCEEDED, 2)


@pytest.mark.long
def test_04_a_frozen_host_comes_back_as_a_zombie(system: System, figure: Figure) -> None:
    job_id = system.order("2 s a step")
    guardian = system.holder(job_id)
    system.signal(guardian, signal.SIGSTOP)
    figure("taken over after (lease 15 s)", system.claimed_again(job_id), LEASE_S + 2, noise=2)
    system.signal(guardian, signal.SIGCONT)
    [job] = system.ended(job_id)
    assert (job.status, job.fence) == (Status.SUCCEEDED, 2)
    # Two are drawn at the same time again: the zombie has let go of what it was doing.
    later = [system.order("1 s a step") for _ in range(2)]
    wait_until(lambda: all(system.store.get(other).status is Status.RUNNING for other in later))
    assert [key.split("/")[2] for key in system.storage.keys(f"outputs/{job_id}/")] == ["2"]


def test_05_a_message_swallowed_by_a_frozen_idle_worker(system: System, figure: Figure) -> None:
    frozen = [system.worker_of(guardian) for guardian in system.guardians]
    for worker in frozen:
        worker.suspend()
    job_id = system.order("0.01 s a step")
    wait_until(lambda: system.messages() == 0)  # Redis has handed it to one of them
    for worker in frozen:
        worker.kill()
    started_s = time.monotonic()
    system.ended(job_id)
    figure("done after, with two workers' restart", time.monotonic() - started_s, 6.0 + 4.0)


def test_16_poison(system: System) -> None:
    poison, harmless = system.order("poison"), system.order()
    [bad, good] = system.ended(poison, harmless, timeout_s=120)
    assert (bad.status, bad.crashes, good.status) == (Status.FAILED, 3, Status.SUCCEEDED)
    assert bad.error is not None and bad.error.code == "worker_lost"
    assert system.client.zscore("granule:dead", poison) is not None


@pytest.mark.long
def test_16_a_broken_device(system: System) -> None:
    broken, harmless = system.order("broken device"), system.order()
    [bad, good] = system.ended(broken, harmless)
    assert (bad.status, bad.crashes, good.status) == (Status.FAILED, 3, Status.SUCCEEDED)


@pytest.mark.long
def test_18_a_hanging_job(system: System, figure: Figure) -> None:
    job_id = system.order("hang")
    wait_until(lambda: system.store.get(job_id).status is Status.RUNNING)
    figure("killed and tried again after (limit 10 s)", system.claimed_again(job_id), 10 + 2, noise=1.3)
    [job] = system.ended(job_id, timeout_s=120)
    assert (job.status, job.crashes) == (Status.FAILED, 3)


def test_20_sigterm_in_a_long_job(system: System, figure: Figure) -> None:
    job_id = system.order("1.2 s a step")
    guardian = system.holder(job_id)
    guardian.send_signal(signal.SIGTERM)
    stopped_s = time.monotonic()
    system.claimed_again(job_id)
    figure("a peer starts it after the grace of 3 s and", time.monotonic() - stopped_s - 3, 1.0)
    [job] = system.ended(job_id)
    assert (job.status, job.fence, job.crashes) == (Status.SUCCEEDED, 2, 0)
    assert guardian.wait(timeout=10) == 0


@pytest.mark.long
def test_19_rolling_restarts_under_load(system: System) -> None:
    job_ids = [system.order("0.1 s a step") for _ in range(40)]
    for _ in range(2):
        for guardian in list(system.guardians):
            guardian.send_signal(signal.SIGTERM)
            assert guardian.wait(timeout=20) == 0
            system.heal()
    jobs = system.ended(*job_ids, timeout_s=120)
    assert {(job.status, job.fence, job.crashes) for job in jobs} == {(Status.SUCCEEDED, 1, 0)}


def test_26_cancel(system: System, figure: Figure) -> None:
    running = [system.order("0.5 s a step") for _ in range(2)]
    waiting = system.order(webhook=True)
    wait_until(lambda: all(system.store.get(job_id).step for job_id in running))
    assert system.cancel(waiting) == "canceled"
    assert system.cancel(running[0]) == "processing"
    asked_s = time.monotonic()
    jobs = system.ended(running[0], waiting)
    figure("a running job stopped after (step 0.5 s)", time.monotonic() - asked_s, 0.5 + 5, noise=1)
    assert [(job.status, job.fence) for job in jobs] == [(Status.CANCELED, 1), (Status.CANCELED, 0)]
    assert system.ended(running[1])[0].status is Status.SUCCEEDED
    assert system.storage.keys(f"outputs/{running[0]}/") == []


@pytest.mark.long
def test_02_kill_9_of_worker_and_guardian(system: System, figure: Figure) -> None:
    job_id = system.order("1 s a step")
    system.kill(system.holder(job_id))
    figure("a peer starts the job after (lease 15 s)", system.claimed_again(job_id), 20.0, noise=2)
    [job] = system.ended(job_id)
    assert (job.status, job.fence, job.crashes) == (Status.SUCCEEDED, 2, 1)


@pytest.mark.long
def test_21_a_courier_killed_and_two_sweeps(system: System) -> None:
    system.heal(couriers=2)
    job_ids = [system.order("0.2 s a step", webhook=True) for _ in range(10)]
    system.kill(system.couriers[0])
    system.kill(system.holder(job_ids[0]))
    assert {job.status for job in system.ended(*job_ids, timeout_s=90)} == {Status.SUCCEEDED}
