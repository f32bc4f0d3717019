"""Faults of the servers behind: Redis dies, restarts, goes silent; the storage refuses, hangs, stays away."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from shared.jobs import Job, Status
from tests.faults.conftest import QUICK, Figure, violations
from tests.faults.proxy import Mode
from tests.faults.system import System, running
from tests.integration.processes import wait_until

CALL_MAX_S = 20.0


def starts(jobs: list[Job]) -> set[tuple[Status, int]]:
    return {(job.status, job.fence) for job in jobs}


@contextmanager
def redis_away(system: System, seconds: float) -> Iterator[None]:
    """Redis is dead for that long; the block runs meanwhile."""
    system.redis.kill()
    back_s = time.monotonic() + seconds
    yield
    time.sleep(max(0.0, back_s - time.monotonic()))
    system.redis.start()


def redis_dies_with_jobs_in_flight(system: System, figure: Figure, seconds: float) -> None:
    job_ids = [system.order(f"{0.2 * seconds} s a step", webhook=True) for _ in range(2)]
    job_ids += [system.order() for _ in range(4)]
    wait_until(lambda: all(system.store.get(job_id).status is Status.RUNNING for job_id in job_ids[:2]))
    with redis_away(system, seconds):
        pass
    back_s = time.monotonic()
    wait_until(lambda: any(system.store.get(job_id).fence for job_id in job_ids[2:]))
    # The two that were running may still have work to do.
    figure(f"down {seconds:.0f} s: first start after its return", time.monotonic() - back_s, 3.0)
    assert starts(system.ended(*job_ids)) == {(Status.SUCCEEDED, 1)}


def test_08_redis_killed_with_jobs_in_flight(system: System, figure: Figure) -> None:
    redis_dies_with_jobs_in_flight(system, figure, 3)


@pytest.mark.long
def test_08_redis_killed_for_longer_with_jobs_in_flight(system: System, figure: Figure) -> None:
    redis_dies_with_jobs_in_flight(system, figure, 20)


def redis_dies_while_all_is_idle(system: System, figure: Figure, seconds: float) -> None:
    slowest_s = 0.0
    with redis_away(system, seconds):
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s - 1:
            started_s = time.monotonic()
            refused = system.post()
            slowest_s = max(slowest_s, time.monotonic() - started_s)
            assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
    figure("the API answers 503 within", slowest_s, 3.0)
    back_s = time.monotonic()
    job_id = system.order(patience_s=10)
    wait_until(lambda: system.store.get(job_id).fence)
    figure("first start after its return", time.monotonic() - back_s, 4.0, noise=2)
    assert starts(system.ended(job_id)) == {(Status.SUCCEEDED, 1)}


def test_09_redis_away_while_workers_are_idle(system: System, figure: Figure) -> None:
    redis_dies_while_all_is_idle(system, figure, 5)


@pytest.mark.long
def test_09_redis_away_for_a_minute(system: System, figure: Figure) -> None:
    redis_dies_while_all_is_idle(system, figure, 60)


def test_10_redis_killed_during_200_orders(system: System, figure: Figure) -> None:
    accepted: list[str] = []
    refused: list[int] = []

    def order(number: int) -> None:
        try:
            answer = system.post("0.001 s a step")
        except requests.RequestException:
            return
        if answer.status_code == 201:
            accepted.append(answer.json()["id"])
        else:
            refused.append(answer.status_code)

    with ThreadPoolExecutor(8) as pool:
        orders = [pool.submit(order, number) for number in range(200)]
        wait_until(lambda: len(accepted) > 60)
        system.redis.kill()
        system.redis.start()
        for sent in orders:
            sent.result()
    assert accepted and set(refused) <= {503}
    missing = [job_id for job_id in accepted if not system.client.exists(f"granule:job:{job_id}")]
    figure("acknowledged orders that are missing", len(missing), 0, unit="")
    assert {job.status for job in system.ended(*accepted, timeout_s=90)} == {Status.SUCCEEDED}


def test_11_half_open_connections(system: System, figure: Figure) -> None:
    job_ids = [system.order("0.3 s a step", webhook=True) for _ in range(2)]
    wait_until(lambda: all(system.store.get(job_id).step for job_id in job_ids))
    system.redis_proxy.swallow_open()
    cut_s = time.monotonic()
    job_ids += [system.order(patience_s=15) for _ in range(2)]
    jobs = system.ended(*job_ids)
    figure("all jobs done after", time.monotonic() - cut_s, 25.0, noise=1.5)
    assert {job.status for job in jobs} == {Status.SUCCEEDED}


def storage_is_spoiled(system: System, figure: Figure, mode: Mode, seconds: float) -> None:
    system.s3_proxy.set_mode(mode)
    job_id = system.order("0.05 s a step", webhook=True)
    wait_until(lambda: system.store.get(job_id).step == 5)
    time.sleep(seconds)
    assert system.store.get(job_id).status is Status.RUNNING
    system.s3_proxy.set_mode(Mode.FORWARD)
    back_s = time.monotonic()
    [job] = system.ended(job_id)
    assert starts([job]) == {(Status.SUCCEEDED, 1)}
    figure(f"{mode.value}: published after its return", time.monotonic() - back_s, CALL_MAX_S, noise=1)


def test_12_storage_answers_503_and_comes_back(system: System, figure: Figure) -> None:
    storage_is_spoiled(system, figure, Mode.ANSWER_503, 3)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("mode", [Mode.ANSWER_503, Mode.SWALLOW])
def test_12_storage_away_for_a_minute(fresh: System, figure: Figure, mode: Mode) -> None:
    fresh.heal(guardians=1)
    storage_is_spoiled(fresh, figure, mode, 60)


@pytest.mark.long
def test_12_a_call_to_a_hanging_storage(system: System, figure: Figure) -> None:
    system.s3_proxy.set_mode(Mode.SWALLOW)
    job_id = system.order("0.05 s a step")
    wait_until(lambda: system.store.get(job_id).step == 5)
    asked_s = time.monotonic()
    system.ended(job_id)
    figure("given up after (upload limit 8 s) at most", time.monotonic() - asked_s, 8 + CALL_MAX_S, noise=1)


def test_13_storage_away_for_too_long(system: System, figure: Figure) -> None:
    system.s3_proxy.set_mode(Mode.REFUSE)
    job_id = system.order("0.05 s a step", webhook=True)
    asked_s = time.monotonic()
    [job] = system.ended(job_id)
    figure("failed after (upload limit 8 s)", time.monotonic() - asked_s, 8 + 15, noise=1)
    assert job.status is Status.FAILED and job.error is not None and job.error.code == "storage_unavailable"
    wait_until(lambda: system.receiver.about(job_id))
    assert system.receiver.about(job_id)[0].status == "failed"


@pytest.mark.long
def test_12_the_storage_server_dies_and_returns(system: System) -> None:
    system.s3.kill()
    job_id = system.order("0.05 s a step")
    wait_until(lambda: system.store.get(job_id).step == 5)
    system.s3.start()
    assert starts(system.ended(job_id)) == {(Status.SUCCEEDED, 1)}
    assert system.read(job_id) == "succeeded"


def test_a_full_redis_refuses_and_recovers(system: System, figure: Figure) -> None:
    job_id = system.order("0.4 s a step")
    wait_until(lambda: system.store.get(job_id).step)
    system.client.config_set("maxmemory", 1)
    refused = system.post()
    assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
    time.sleep(3)
    system.client.config_set("maxmemory", 0)
    assert starts(system.ended(job_id)) == {(Status.SUCCEEDED, 1)}


@pytest.mark.long
def test_a_redis_that_is_read_only_for_a_while(system: System) -> None:
    job_id = system.order("0.4 s a step", webhook=True)
    wait_until(lambda: system.store.get(job_id).step)
    processes = [*map(system.worker_of, system.guardians), *(psutil.Process(courier.pid) for courier in system.couriers)]
    system.client.replicaof("127.0.0.1", "1")  # what a server is that another one took over from
    refused = system.post()
    assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
    time.sleep(4)
    system.client.replicaof("NO", "ONE")
    assert starts(system.ended(job_id, system.order(webhook=True))) == {(Status.SUCCEEDED, 1)}
    assert all(process.is_running() for process in processes)


@pytest.mark.long
@pytest.mark.parametrize("seconds", [12, 25], ids=["shorter than a lease", "longer than a lease"])
def test_00_a_frozen_redis(system: System, seconds: float) -> None:
    job_ids = [system.order(f"{0.3 * seconds} s a step") for _ in range(2)] + [system.order() for _ in range(2)]
    wait_until(lambda: all(system.store.get(job_id).status is Status.RUNNING for job_id in job_ids[:2]))
    time.sleep(1)
    system.redis.freeze()
    time.sleep(seconds)
    system.redis.thaw()
    assert starts(system.ended(*job_ids, timeout_s=90)) == {(Status.SUCCEEDED, 1)}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_07_thousands_of_jobs_under_kill_9(tmp_path_factory: pytest.TempPathFactory, figure: Figure) -> None:
    with running(tmp_path_factory.mktemp("thousands"), appendfsync="everysec", **QUICK) as system:
        system.heal(guardians=2)
        with ThreadPoolExecutor(8) as pool:
            job_ids = list(pool.map(lambda _: system.order("0 s a step", patience_s=5), range(1000)))
        kills, started_s = 0, time.monotonic()
        while not all(system.store.get(job_id).status.is_terminal for job_id in job_ids[-50:]):
            assert time.monotonic() - started_s < 600
            guardian = system.guardians[kills % 2]
            system.wait_ready(guardian)
            time.sleep(1)
            system.worker_of(guardian).kill()
            kills += 1
        jobs = system.ended(*job_ids, timeout_s=120)
        lost = sum(job.status is not Status.SUCCEEDED for job in jobs)
        figure(f"of 1000 jobs and {kills} kills, lost", lost, 0, unit="")


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 64 MB, where this machine lets us make one."""
    folder = tmp_path_factory.mktemp("small")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root and Linux")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write a file until the disk is full."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return filler


@pytest.mark.long
@pytest.mark.parametrize("appendfsync", ["everysec", "always"])
def test_a_full_disk_under_redis(
    tmp_path_factory: pytest.TempPathFactory, small_disk: Path, figure: Figure, appendfsync: str
) -> None:
    folder = tmp_path_factory.mktemp("disk")
    (folder / "redis").symlink_to(small_disk)
    with running(folder, appendfsync=appendfsync, **QUICK) as system:
        system.heal(guardians=1)
        job_ids = [system.order("1.5 s a step", webhook=True)]
        courier = system.couriers[0]
        wait_until(lambda: system.store.get(job_ids[0]).step)
        filler, refused = fill(small_disk), 0
        for _ in range(20):
            answer = system.post("0.01 s a step")
            assert answer.status_code in (201, 503)
            refused += answer.status_code == 503
            job_ids += [answer.json()["id"]] if answer.ok else []
        assert refused
        filler.unlink()
        if appendfsync == "always":  # such a server ends rather than promise what it cannot keep; whoever runs it restarts it
            system.redis.kill()
            system.redis.start()
        freed_s = time.monotonic()
        assert starts(system.ended(*job_ids)) == {(Status.SUCCEEDED, 1)}
        assert courier.poll() is None
        figure(f"appendfsync {appendfsync}: all done after there is space", time.monotonic() - freed_s, 20.0)
        assert violations(system) == []


@pytest.mark.long
def test_a_full_disk_under_the_storage(tmp_path_factory: pytest.TempPathFactory, small_disk: Path, figure: Figure) -> None:
    folder = tmp_path_factory.mktemp("disk")
    (folder / "s3").symlink_to(small_disk)
    with running(folder, **QUICK | {"publish_limit_s": 120}) as system:
        system.heal(guardians=1)
        system.ended(system.order("0.01 s a step"))  # a server that has stored nothing yet hangs in place of an answer
        filler = fill(small_disk)
        job_ids = [system.order("0.01 s a step", webhook=True) for _ in range(3)]
        wait_until(lambda: system.store.get(job_ids[1]).step == 5)
        time.sleep(5)
        assert {system.store.get(job_id).result for job_id in job_ids} == {None}
        filler.unlink()
        freed_s = time.monotonic()
        assert starts(system.ended(*job_ids, timeout_s=120)) == {(Status.SUCCEEDED, 1)}
        figure("all done after there is space", time.monotonic() - freed_s, 20.0)
        assert {system.read(job_id) for job_id in job_ids} == {"succeeded"}
        assert violations(system) == []
