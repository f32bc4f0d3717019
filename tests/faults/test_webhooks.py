"""Faults around webhooks: receivers that are away, refuse, hang or send elsewhere; a courier that dies in the middle."""

from __future__ import annotations

import time

import pytest

from shared.jobs import Status
from tests.faults.conftest import Figure
from tests.faults.history import Told
from tests.faults.system import System
from tests.integration.processes import wait_until

TRIES = 9
SECOND_TRY_S = 5.0 * 1.2


def test_22_a_receiver_that_is_down_for_a_while(system: System, figure: Figure) -> None:
    system.receiver.down()
    job_ids = [system.order(webhook=True) for _ in range(3)]
    started_s = time.monotonic()
    assert {job.status for job in system.ended(*job_ids)} == {Status.SUCCEEDED}
    figure("jobs done meanwhile after", time.monotonic() - started_s, 5.0)
    wait_until(lambda: all(delivery.attempts for job_id in job_ids for delivery in system.outbox.of_job(job_id)))
    system.receiver.up()
    up_s = time.monotonic()
    wait_until(lambda: all(system.receiver.about(job_id) for job_id in job_ids))
    figure("delivered after its return (next slot 5 s)", time.monotonic() - up_s, SECOND_TRY_S, noise=2)
    assert [system.settled(job_id) for job_id in job_ids] == [["delivered"]] * 3


def test_23_a_receiver_that_always_fails(system: System) -> None:
    system.receiver.status = 500
    job_id = system.order(webhook=True)
    for tried in range(1, TRIES + 1):
        wait_until(lambda tried=tried: len(system.receiver.about(job_id)) >= tried)
        wait_until(lambda tried=tried: system.outbox.of_job(job_id)[0].attempts >= tried)
        system.pull_forward()
    assert system.settled(job_id) == ["dead"]
    told = system.receiver.about(job_id)
    assert len(told) == TRIES and len({(one.message_id, one.body_sha256) for one in told}) == 1


@pytest.mark.long
def test_23_a_receiver_that_hangs(system: System, figure: Figure) -> None:
    system.receiver.delay_s = 13.0
    job_id = system.order(webhook=True)
    wait_until(lambda: system.receiver.about(job_id))
    started_s = time.monotonic()
    system.receiver.delay_s = 0.0
    wait_until(lambda: system.outbox.of_job(job_id)[0].attempts)
    figure("given up after", time.monotonic() - started_s, 10.0, noise=1.2)
    assert system.settled(job_id) == ["delivered"]


@pytest.mark.long
def test_23_a_receiver_that_sends_elsewhere(system: System) -> None:
    system.receiver.status, system.receiver.headers = 302, {"Location": "http://169.254.169.254/latest/meta-data/"}
    job_id = system.order(webhook=True)
    wait_until(lambda: any(delivery.attempts for delivery in system.outbox.of_job(job_id)))
    [delivery] = system.outbox.of_job(job_id)
    assert (delivery.state, delivery.note) == ("pending", "HTTP 302")
    system.receiver.reset()
    system.pull_forward()
    assert system.settled(job_id) == ["delivered"]


@pytest.mark.long
def test_24_a_courier_killed_between_sending_and_noting(system: System, figure: Figure) -> None:
    courier = system.couriers[0]

    def die(told: Told) -> None:
        system.receiver.on_post = None
        courier.kill()

    system.receiver.on_post = die
    job_id = system.order(webhook=True)
    wait_until(lambda: courier.poll() is not None)
    killed_s = time.monotonic()
    system.heal()
    wait_until(lambda: len(system.receiver.about(job_id)) > 1, timeout_s=90)
    figure("sent again after (held for 60 s)", time.monotonic() - killed_s, 62.0, noise=1.3)
    assert system.settled(job_id) == ["delivered"]
    told = system.receiver.about(job_id)
    assert len(told) == 2 and len({one.message_id for one in told}) == 1
