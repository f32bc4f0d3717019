"""Faults of the record's moves: replies that got lost, races, a full queue, an API that dies at the worst moment."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.job_store import Beat, Finish, JobStore, connect_store
from shared.jobs import Job, Result, Status
from shared.redis_client import connect
from tests.contracts.jobs import MODEL, new_result, new_spec
from tests.faults.conftest import Figure
from tests.faults.proxy import script_sha
from tests.faults.system import System
from tests.integration.processes import wait_until


@pytest.fixture
def spoiled(system: System) -> Iterator[JobStore]:
    """The store as a worker has it, behind the proxy that can lose replies."""
    client = connect(system.settings.redis_url, timeout_s=5)
    yield connect_store(system.settings.model_copy(update={"redis_prefix": "spoiled:"}), client)
    client.close()


def lost(system: System, script: str, call: Callable[[], object]) -> object:
    """Make a move whose reply is lost after it was made."""
    system.redis_proxy.lose_reply_to(script_sha(script))
    before = system.redis_proxy.lost_replies
    outcome = call()
    assert system.redis_proxy.lost_replies == before + 1
    return outcome


def create(store: JobStore, job_id: str | None = None) -> str:
    spec = new_spec(**({"id": job_id} if job_id else {}))
    return store.create(spec, body_hash="h", queue_max_jobs=10_000).job_id


@pytest.mark.parametrize("replies", [20, pytest.param(100, marks=pytest.mark.long)])
def test_28_lost_replies(system: System, spoiled: JobStore, figure: Figure, replies: int) -> None:
    first = create(spoiled)  # every script is known to the server from here on
    claimed = spoiled.claim(first, worker="a", delivery_token="1")
    assert claimed is not None and spoiled.renew(first, 1) is Beat.HELD
    assert spoiled.expire(first, fence=1) is Status.QUEUED
    assert spoiled.claim_next(MODEL, worker="a", token="2") and spoiled.release(first, 2) is Status.QUEUED
    spoiled.claim(first, worker="a", delivery_token="3")
    spoiled.succeed(first, 3, new_result())
    worst_s = 0.0
    for number in range(replies):
        started_s = time.monotonic()
        job_id = uuid.uuid4().hex
        assert lost(system, "create", lambda job_id=job_id: create(spoiled, job_id)) == job_id
        kept = lost(system, "claim", lambda job_id=job_id: spoiled.claim(job_id, worker="a", delivery_token="1"))
        assert kept is not None and spoiled.get(job_id).fence == 1
        if number % 2:
            assert lost(system, "expire", lambda job_id=job_id: spoiled.expire(job_id, fence=1)) is Status.QUEUED
        else:
            assert lost(system, "release", lambda job_id=job_id: spoiled.release(job_id, 1)) is Status.QUEUED
        again = lost(system, "claim_next", lambda job_id=job_id: spoiled.claim_next(MODEL, worker="a", token=job_id))
        assert isinstance(again, Job) and (again.id, again.fence) == (job_id, 2)
        assert lost(system, "renew", lambda job_id=job_id: spoiled.renew(job_id, 2, step=1)) is Beat.HELD
        done = lost(system, "finish", lambda job_id=job_id: spoiled.succeed(job_id, 2, new_result()))
        assert done is Finish.ALREADY_DONE
        job = spoiled.get(job_id)
        assert (job.status, job.fence, job.crashes) == (Status.SUCCEEDED, 2, number % 2)
        worst_s = max(worst_s, time.monotonic() - started_s)
    figure(f"{replies} x 6 lost replies: slowest job of six", worst_s, 1.0)


def test_28_lost_replies_of_the_whole_system(system: System) -> None:
    system.order()  # loads the scripts
    for script in ("create", "claim", "renew", "finish"):
        system.redis_proxy.lose_reply_to(script_sha(script))
        before = system.redis_proxy.lost_replies
        job_id = system.order("0.05 s a step", webhook=True)
        [job] = system.ended(job_id)
        wait_until(lambda before=before: system.redis_proxy.lost_replies > before)
        assert (job.status, job.fence) == (Status.SUCCEEDED, 1)
        assert system.read(job_id) == "succeeded"


ZOMBIE_MOVES_AT = range(4)
"""After how many of the new attempt's moves (expire, claim, succeed) the old attempt comes with its picture."""


@pytest.fixture
def racing(system: System) -> JobStore:
    return connect_store(system.settings.model_copy(update={"redis_prefix": "race:"}), system.client)


def result_of(job_id: str, fence: int) -> Result:
    return new_result(f"outputs/{job_id}/{fence}/0.png")


def published(store: JobStore, job_id: str) -> int:
    """Fence of the attempt whose picture the record names."""
    job = store.get(job_id)
    assert job.status is Status.SUCCEEDED and job.result is not None
    return int(job.result.outputs[0].key.split("/")[2])


@pytest.mark.parametrize("at", ZOMBIE_MOVES_AT)
def test_14_a_zombie_comes_between_any_two_moves_of_the_new_attempt(racing: JobStore, at: int) -> None:
    job_id = create(racing)
    racing.claim(job_id, worker="zombie", delivery_token="1")
    outcomes: list[Finish] = []

    def peer_succeeds() -> None:
        outcomes.append(racing.succeed(job_id, 2, result_of(job_id, 2)))

    moves: list[Callable[[], object]] = [
        lambda: racing.expire(job_id, fence=1),
        lambda: racing.claim(job_id, worker="peer", delivery_token="2"),
        peer_succeeds,
    ]
    moves.insert(at, lambda: outcomes.append(racing.succeed(job_id, 1, result_of(job_id, 1))))
    for move in moves:
        move()
    winner = 1 if at == 0 else 2
    assert sorted(outcomes) == [Finish.REFUSED, Finish.DONE]
    assert published(racing, job_id) == winner
    assert racing.succeed(job_id, winner, result_of(job_id, winner)) is Finish.ALREADY_DONE
    assert racing.succeed(job_id, 3 - winner, result_of(job_id, 3 - winner)) is Finish.REFUSED


class Headstart:
    """How far ahead of the other one of two racers is let go, so that either wins, however fast the machine is.

    Whoever won starts later the next time. While the same one wins on, the correction doubles: the other wins in the end.
    """

    STEP_S = 0.00005

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._lead_s, self._step_s = 0.0, self.STEP_S
        self._last: bool | None = None

    def draw(self) -> tuple[float, float]:
        """Return the times that the first racer and the second are to wait; chance moves both around the even point."""
        lead_s = self._lead_s + self._dice.uniform(-2, 2) * self.STEP_S
        return max(0.0, -lead_s), max(0.0, lead_s)

    def note(self, first_won: bool) -> None:
        self._step_s = self._step_s * 2 if first_won is self._last else self.STEP_S
        self._lead_s += -self._step_s if first_won else self._step_s
        self._last = first_won


@pytest.mark.parametrize("races", [200, pytest.param(1000, marks=pytest.mark.long)])
def test_14_a_zombie_races_the_new_attempt(racing: JobStore, figure: Figure, races: int) -> None:
    headstart, wins = Headstart(14), {1: 0, 2: 0}
    start = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(races):
            job_id = create(racing)
            racing.claim(job_id, worker="zombie", delivery_token="1")
            zombie_waits_s, peer_waits_s = headstart.draw()

            def zombie(job_id: str = job_id, wait_s: float = zombie_waits_s) -> Finish:
                start.wait()
                time.sleep(wait_s)
                return racing.succeed(job_id, 1, result_of(job_id, 1))

            def peer(job_id: str = job_id, wait_s: float = peer_waits_s) -> Finish | None:
                start.wait()
                time.sleep(wait_s)
                racing.expire(job_id, fence=1)
                if racing.claim(job_id, worker="peer", delivery_token="2") is None:
                    return None
                return racing.succeed(job_id, 2, result_of(job_id, 2))

            ends = pool.submit(zombie), pool.submit(peer)
            outcomes = ends[0].result(), ends[1].result()
            # Whoever was given the job after the zombie ends it.
            assert outcomes in ((Finish.DONE, None), (Finish.REFUSED, Finish.DONE))
            winner = outcomes.index(Finish.DONE) + 1
            assert published(racing, job_id) == winner
            headstart.note(first_won=winner == 1)
            wins[winner] += 1
    assert min(wins.values()) > 0, f"the race was no race: {wins}"
    figure(f"{races} races (zombie won {wins[1]}): two winners in", 0, 0, unit="")


def test_15_a_hundred_orders_with_one_key(system: System) -> None:
    key = uuid.uuid4().hex
    start = threading.Barrier(20)

    def order(number: int) -> tuple[int, str, bool]:
        if number < 20:
            start.wait()
        answer = system.post("0.01 s a step", key=key)
        return answer.status_code, answer.json()["id"], "Idempotent-Replayed" in answer.headers

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(order, range(100)))
    assert len({job_id for _, job_id, _ in answers}) == 1
    assert sorted((status, replayed) for status, _, replayed in answers) == [(200, True)] * 99 + [(201, False)]
    conflict = system.post("another order", key=key)
    assert conflict.status_code == 422 and conflict.json()["code"] == "idempotency_conflict"
    system.ended(answers[0][1])


def test_25_a_full_queue(fresh: System, figure: Figure) -> None:
    fresh.processes.settings = fresh.settings.model_copy(update={"queue_max_jobs": 3})
    fresh.heal(guardians=0, couriers=0)
    for _ in range(3):
        assert fresh.post().status_code == 201
    times_s = []
    for _ in range(20):
        started_s = time.monotonic()
        refused = fresh.post()
        times_s.append(time.monotonic() - started_s)
        assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 0
    assert fresh.store.depth(MODEL) == 3 and len(list(fresh.client.scan_iter("granule:job:*"))) == 3
    figure("refused within (median)", sorted(times_s)[10] * 1000, 50, unit="ms")


def api_dies_before_the_message(system: System) -> str:
    """Order from an API that is killed between recording the job and sending its message; returns the job's id."""
    assert system.api is not None
    system.kill(system.api)
    before = set(system.ending().records)
    system.start_api("tests.standin.api:create_doomed_app()")
    with pytest.raises(OSError):
        system.post("0.01 s a step")
    system.kill(system.api)
    [job_id] = set(system.ending().records) - before
    return job_id


def test_06_the_api_is_killed_between_record_and_message(system: System, figure: Figure) -> None:
    job_id = api_dies_before_the_message(system)
    recorded_ms = system.store.get(job_id).created_ms
    [job] = system.ended(job_id)
    assert job.started_ms is not None and job.fence == 1
    figure("started after, on an idle system", (job.started_ms - recorded_ms) / 1000, 5.0)


@pytest.mark.long
def test_06_the_same_inside_a_backlog(system: System, figure: Figure) -> None:
    backlog = [system.order("0.1 s a step") for _ in range(50)]
    job_id = api_dies_before_the_message(system)
    system.heal()
    later = [system.order("0.1 s a step") for _ in range(20)]
    jobs = system.ended(*backlog, *later, job_id, timeout_s=120)
    assert {(job.status, job.fence) for job in jobs} == {(Status.SUCCEEDED, 1)}
    due_ms = jobs[50].started_ms
    missed = jobs[-1].started_ms
    assert due_ms is not None and missed is not None
    figure("started after its turn had come", max(0.0, (missed - due_ms) / 1000), 5.0 + 0.5)
