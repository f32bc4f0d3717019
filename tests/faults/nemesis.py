"""The nemesis: clients order tiles while a seeded dice breaks one thing after another; then everything must be true."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from shared.errors import NotFound
from shared.jobs import Lane, Status
from shared.queue import enqueue_render, make_celery, message_lists
from shared.worker_registry import connect_workers
from tests.contracts.jobs import MODEL
from tests.faults.conftest import QUICK
from tests.faults.history import Violation, check
from tests.faults.proxy import Mode, script_sha
from tests.faults.system import System, running
from tests.integration.processes import models_in_batches, wait_until

SCRIPTS = ("create", "claim", "claim_next", "renew", "finish", "expire", "release")
SPECIAL = ("poison", "broken device")
DRAIN_MAX_S = 180.0
BATCH_SIZE = 3
BURST = 9
"""Orders that a client sends at once now and then: enough that two or three workers draw them in batches."""


@contextmanager
def battlefield(folder: Path) -> Iterator[System]:
    """A system whose workers draw several jobs together where the line is long; its servers run in the block."""
    models = folder / "models"
    models.mkdir()
    with running(folder, models_dir=models_in_batches(models, BATCH_SIZE), **QUICK) as system:
        yield system


@dataclass(eq=False)
class Client(threading.Thread):
    """Orders tiles and reads its own orders until told to stop; what it is told goes into the system's history."""

    system: System
    dice: random.Random
    pause_s: float
    stopping: threading.Event = field(default_factory=threading.Event)
    given_up: int = 0

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._open: list[str] = []

    def run(self) -> None:
        while not self.stopping.wait(self.dice.uniform(0, 2 * self.pause_s)):
            try:
                self._act()
            except requests.RequestException:
                self.given_up += 1

    def _act(self) -> None:
        for _ in range(BURST if self.dice.random() < 0.1 else 1):
            self._order()
        if self.dice.random() < 0.1:
            self.system.cancel(self.dice.choice(self._open))
        for job_id in self.dice.sample(self._open, min(3, len(self._open))):
            if self.system.read(job_id) in ("succeeded", "failed", "canceled"):
                # Once more later on: an end must stay the end.
                self._open.remove(job_id)
                self.system.read(job_id)

    def _order(self) -> None:
        prompt = f"{self.dice.uniform(0.02, 0.15):.2f} s a step"
        if self.dice.random() < 0.02:
            prompt = self.dice.choice(SPECIAL)
        self._open.append(self.system.order(prompt, webhook=self.dice.random() < 0.6, patience_s=30))


@dataclass(frozen=True)
class Struck:
    """A job whose worker was broken: which claim of it, and when (ms since 1970)."""

    job_id: str
    fence: int
    at_ms: float


@dataclass
class Report:
    """What a run came to.

    `batched` jobs were drawn together with others. `recovery_s` is the longest time from the death of a worker to its job's
    next claim.
    """

    seed: int
    faults: Counter[str]
    statuses: Counter[str]
    attempts: int
    batched: int
    violations: list[Violation]
    recovery_s: float
    drain_s: float

    @property
    def jobs(self) -> int:
        """How many jobs are on record."""
        return sum(self.statuses.values())

    def count(self, *kinds: str) -> int:
        """How many violations are of these kinds."""
        return sum(violation.kind in kinds for violation in self.violations)

    def lines(self) -> list[str]:
        """The report as text."""
        by_kind = [f"  {count:4} {kind}" for kind, count in sorted(self.faults.items())]
        lost, doubled, stuck = self.count("lost", "no output"), self.count("doubled", "two ends"), self.count("stuck")
        return [
            f"seed {self.seed}: {self.jobs} jobs in {self.attempts} attempts, {self.batched} drawn in batches, "
            f"{self.faults.total()} faults",
            *by_kind,
            f"ended: {json.dumps(dict(sorted(self.statuses.items())))}",
            f"lost {lost}, doubled {doubled}, stuck {stuck}, other contradictions "
            f"{len(self.violations) - lost - doubled - stuck}",
            f"worst recovery {self.recovery_s:.1f} s, drained {self.drain_s:.1f} s after the last fault",
            *(f"  {violation.kind}: {violation.subject}: {violation.detail}" for violation in self.violations),
        ]


class Nemesis:
    """Breaks a system's parts at random. Every fault is over, or on its way to recovery, when its method returns."""

    def __init__(self, system: System, *, seed: int, guardians: int, couriers: int = 2) -> None:
        self._system = system
        self._dice = random.Random(seed)
        self._seed = seed
        self._guardians = guardians
        self._couriers = couriers
        self._celery = make_celery(system.settings)
        self._workers = connect_workers(system.settings, system.client)
        self._struck: list[Struck] = []
        self.faults: Counter[str] = Counter()

    def run(self, seconds: float, *, clients: int = 3, pause_s: float = 3.0, order_pause_s: float = 1.5) -> Report:
        """Break things for that long, heal them, wait until every job and webhook is through, and check the history."""
        self._system.heal(guardians=self._guardians, couriers=self._couriers)
        callers = [Client(self._system, random.Random(self._seed + n), order_pause_s) for n in range(1, clients + 1)]
        for caller in callers:
            caller.start()
        end_s = time.monotonic() + seconds
        hand = self._shuffled()
        while time.monotonic() < end_s:
            time.sleep(self._dice.uniform(0, 2 * pause_s))
            fault = hand.pop()
            fault()
            self.faults[fault.__name__.strip("_").replace("_", " ")] += 1
            self._system.replace_dead(guardians=self._guardians, couriers=self._couriers)
            hand = hand or self._shuffled()
        last_s = time.monotonic()
        for caller in callers:
            caller.stopping.set()
        self._system.heal(guardians=self._guardians, couriers=self._couriers)
        for caller in callers:
            caller.join(timeout=60)
        return self._settle(last_s)

    def _settle(self, last_s: float) -> Report:
        system = self._system
        while not all(job.status.is_terminal for job in system.jobs()) and time.monotonic() - last_s < DRAIN_MAX_S:
            time.sleep(0.1)
        drain_s = time.monotonic() - last_s
        system.clear_up()
        jobs = system.jobs()
        violations = check([*system.history, *system.receiver.told], system.ending())
        statuses = Counter(str(job.status) for job in jobs)
        attempts = sum(job.fence for job in jobs)
        batched = sum(job.result is not None and job.result.provenance["batch_size"] > 1 for job in jobs)
        return Report(self._seed, self.faults, statuses, attempts, batched, violations, self._worst_s(), drain_s)

    def _worst_s(self) -> float:
        """Of the jobs whose last claim followed a strike, the longest way from the one to the other."""
        worst_s = 0.0
        for struck in self._struck:
            job = self._system.store.get(struck.job_id)
            if job.fence == struck.fence + 1 and job.started_ms is not None:
                worst_s = max(worst_s, (job.started_ms - struck.at_ms) / 1000)
        return worst_s

    def _shuffled(self) -> list[Callable[[], None]]:
        """Every fault once, in a random order: each run of some length has all kinds."""
        kinds = [
            self._worker_killed, self._worker_and_guardian_killed, self._worker_frozen, self._host_frozen,
            self._guardian_stopped, self._worker_drained,
            self._courier_killed, self._api_killed, self._redis_killed, self._redis_frozen, self._redis_connections_cut,
            self._redis_connections_silent, self._reply_lost, self._message_lost, self._message_doubled, self._storage_refuses,
            self._storage_answers_503, self._storage_hangs, self._storage_killed, self._receiver_down, self._receiver_fails,
            self._receiver_slow,
        ]  # fmt: skip
        self._dice.shuffle(kinds)
        return kinds

    def _wait(self, low_s: float, high_s: float) -> None:
        time.sleep(self._dice.uniform(low_s, high_s))

    def _strike(self) -> int:
        """Choose a guardian, and note the job of its worker as struck; returns its place in the list."""
        place = self._dice.randrange(len(self._system.guardians))
        name = f"-{self._system.guardians[place].pid}-"
        for job in self._system.jobs():
            if job.status is Status.RUNNING and name in (job.worker or ""):
                self._struck.append(Struck(job.id, job.fence, time.time() * 1000))
        return place

    # -- workers, couriers, API

    def _worker_killed(self) -> None:
        self._system.worker_of(self._system.guardians[self._strike()]).kill()

    def _worker_and_guardian_killed(self) -> None:
        self._system.kill(self._system.guardians[self._strike()])

    def _worker_frozen(self) -> None:
        worker = self._system.worker_of(self._system.guardians[self._dice.randrange(self._guardians)])
        worker.suspend()
        self._wait(1, 8)
        if worker.is_running():
            worker.resume()

    def _host_frozen(self) -> None:
        guardian = self._system.guardians[self._dice.randrange(self._guardians)]
        self._system.signal(guardian, signal.SIGSTOP)
        self._wait(2, 20)
        self._system.signal(guardian, signal.SIGCONT)

    def _guardian_stopped(self) -> None:
        guardian = self._dice.choice(self._system.guardians)
        guardian.send_signal(signal.SIGTERM)
        guardian.wait(timeout=60)

    def _worker_drained(self) -> None:
        name = self._system.name_of(self._dice.choice(self._system.guardians))
        self._tell(self._workers.drain, name)
        self._wait(1, 8)
        self._tell(self._workers.resume, name)

    def _tell(self, move: Callable[[str], None], name: str) -> None:
        """Speak to a worker once it shows itself: it does not between its process's end and its guardian's next word."""

        def is_heard() -> bool:
            try:
                move(name)
            except NotFound:
                return False
            return True

        wait_until(is_heard, timeout_s=60)

    def _courier_killed(self) -> None:
        self._system.kill(self._dice.choice(self._system.couriers))

    def _api_killed(self) -> None:
        assert self._system.api is not None
        self._system.kill(self._system.api)
        self._system.start_api()

    # -- Redis

    def _redis_killed(self) -> None:
        self._system.redis.kill()
        self._wait(0.2, 4)
        self._system.redis.start()

    def _redis_frozen(self) -> None:
        self._system.redis.freeze()
        self._wait(1, 5)
        self._system.redis.thaw()

    def _redis_connections_cut(self) -> None:
        self._system.redis_proxy.cut()

    def _redis_connections_silent(self) -> None:
        self._system.redis_proxy.swallow_open()

    def _reply_lost(self) -> None:
        script = self._dice.choice(SCRIPTS)
        self._system.redis_proxy.lose_reply_to(script_sha(script))

    def _message_lost(self) -> None:
        for name in message_lists(MODEL, prefix=self._system.settings.redis_prefix):
            self._system.client.rpop(name)

    def _message_doubled(self) -> None:
        for job in self._system.jobs()[:5]:
            enqueue_render(self._celery, job.id, model=MODEL, lane=Lane.NORMAL)

    # -- storage, receiver

    def _spoil_storage(self, mode: Mode) -> None:
        self._system.s3_proxy.set_mode(mode)
        self._wait(1, 6)
        self._system.s3_proxy.set_mode(Mode.FORWARD)

    def _storage_refuses(self) -> None:
        self._spoil_storage(Mode.REFUSE)

    def _storage_answers_503(self) -> None:
        self._spoil_storage(Mode.ANSWER_503)

    def _storage_hangs(self) -> None:
        self._spoil_storage(Mode.SWALLOW)

    def _storage_killed(self) -> None:
        self._system.s3.kill()
        self._wait(0.2, 3)
        self._system.s3.start()

    def _receiver_down(self) -> None:
        self._system.receiver.down()
        self._wait(1, 6)
        self._system.receiver.up()

    def _receiver_fails(self) -> None:
        self._system.receiver.status = 500
        self._wait(1, 6)
        self._system.receiver.status = 200

    def _receiver_slow(self) -> None:
        self._system.receiver.delay_s = 4
        self._wait(1, 6)
        self._system.receiver.delay_s = 0
