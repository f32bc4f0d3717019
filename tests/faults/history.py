"""The history checker: holds what clients were told against what is there at the end, and lists every contradiction.

Pure: a `History` is what happened in the order it was noticed, an `Ending` is what record, bucket and receiver hold once
everything is quiet. `check` returns nothing if every promise of docs/operations.md was kept.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

TERMINAL = frozenset({"succeeded", "failed", "canceled"})
OUTPUTS = "outputs/"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A client's order was acknowledged with a job's id. `key` is the idempotency key it came with."""

    key: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A client read a job: its status, and of a succeeded one the digest (sha256, hex) that its file is said to have."""

    job_id: str
    status: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """A receiver got a webhook; `answer` is the HTTP status it gave back, None when it gave none."""

    message_id: str
    job_id: str
    status: str
    body_sha256: str
    answer: int | None


Happening = Accepted | Seen | Told


@dataclass(frozen=True, slots=True)
class Record:
    """How a job's record ended: `outputs` maps each object's key to the digest on record."""

    status: str
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a webhook's record ended: `event`, `state` (pending, delivered, dead) and the job it is about."""

    message_id: str
    job_id: str
    event: str
    state: str


@dataclass(frozen=True, slots=True)
class Ending:
    """What is there at the end: records by job id, digests of the stored objects by key, deliveries.

    `webhooks` are the jobs that asked to be told of their end.
    """

    records: Mapping[str, Record]
    objects: Mapping[str, str]
    deliveries: tuple[Delivery, ...] = ()
    webhooks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One broken promise: which (`lost`, `stuck`, `doubled`, ...), about what, and how it shows."""

    kind: str
    subject: str
    detail: str


def check(history: list[Happening], ending: Ending) -> list[Violation]:
    """List every contradiction, sorted."""
    found = [
        *_jobs(history, ending),
        *_statuses(history, ending),
        *_outputs(history, ending),
        *_deliveries(history, ending),
    ]
    return sorted(set(found))


def _jobs(history: list[Happening], ending: Ending) -> Iterator[Violation]:
    """Every acknowledged job is on record, every job on record ended, and one key never made two jobs."""
    by_key: dict[str, set[str]] = defaultdict(set)
    for happening in history:
        if isinstance(happening, Accepted):
            by_key[happening.key].add(happening.job_id)
            if happening.job_id not in ending.records:
                yield Violation("lost", happening.job_id, "acknowledged, but there is no record of it")
    for key, ids in by_key.items():
        if len(ids) > 1:
            yield Violation("doubled", key, f"one order made {len(ids)} jobs: {', '.join(sorted(ids))}")
    for job_id, record in ending.records.items():
        if record.status not in TERMINAL:
            yield Violation("stuck", job_id, f"is still {record.status}")


def _statuses(history: list[Happening], ending: Ending) -> Iterator[Violation]:
    """Whoever was told of an end, by whatever way, was told of the same one, and never of anything else afterwards."""
    read: dict[str, str] = {}
    told: dict[str, set[str]] = defaultdict(set)
    for happening in history:
        if isinstance(happening, Accepted):
            continue
        job_id, status = happening.job_id, happening.status
        if status in TERMINAL:
            told[job_id].add(status)
        if isinstance(happening, Seen):
            if read.get(job_id) in TERMINAL and status != read[job_id]:
                yield Violation("undone", job_id, f"was read as {read[job_id]} and later as {status}")
            read[job_id] = status
    for job_id, statuses in told.items():
        record = ending.records.get(job_id)
        ends = statuses | ({record.status} if record and record.status in TERMINAL else set())
        if len(ends) > 1:
            yield Violation("two ends", job_id, " and ".join(sorted(ends)))
        if record is None:
            yield Violation("lost", job_id, "clients were told of its end, but there is no record of it")


def _outputs(history: list[Happening], ending: Ending) -> Iterator[Violation]:
    """A succeeded job has its pictures and nothing else, as they were told; no other job has any."""
    for job_id, record in ending.records.items():
        yield from _pictures(job_id, record, ending)
    published = {key for record in ending.records.values() for key in record.outputs}
    for key in ending.objects:
        if key.startswith(OUTPUTS) and key not in published:
            yield Violation("orphan", key, "no record names this object")
    for happening in history:
        if isinstance(happening, Seen) and happening.sha256 is not None:
            record = ending.records.get(happening.job_id, Record("", {"": happening.sha256}))
            if happening.sha256 not in record.outputs.values():
                yield Violation("wrong output", happening.job_id, "a client was told of another picture")


def _pictures(job_id: str, record: Record, ending: Ending) -> Iterator[Violation]:
    if record.status == "succeeded" and not record.outputs:
        yield Violation("no output", job_id, "succeeded without a picture")
    if record.status != "succeeded" and record.outputs:
        yield Violation("doubled", job_id, f"{record.status}, but with pictures on record")
    if len({key.rsplit("/", 1)[0] for key in record.outputs}) > 1:
        yield Violation("doubled", job_id, "pictures of two attempts are on record")
    for key, sha256 in record.outputs.items():
        if key not in ending.objects:
            yield Violation("no output", job_id, f"{key} is not in the bucket")
        elif ending.objects[key] != sha256:
            yield Violation("wrong output", job_id, f"{key} is not what the record says")


def _deliveries(history: list[Happening], ending: Ending) -> Iterator[Violation]:
    """What the outbox says of a message is what its receiver saw, and no job's end is told by two messages."""
    received: dict[str, list[Told]] = defaultdict(list)
    for happening in history:
        if isinstance(happening, Told):
            received[happening.message_id].append(happening)
    for delivery in ending.deliveries:
        yield from _last_state(delivery, received[delivery.message_id])
    known = {delivery.message_id for delivery in ending.deliveries}
    for message_id, tries in received.items():
        if len({told.body_sha256 for told in tries}) > 1:
            yield Violation("untrue delivery", message_id, "came with different bodies")
        if message_id not in known:
            yield Violation("untrue delivery", message_id, "was received, but is not in the outbox")
    ends = Counter(delivery.job_id for delivery in ending.deliveries if delivery.event == "completed")
    for job_id, record in ending.records.items():
        wanted = int(job_id in ending.webhooks and record.status in TERMINAL)
        if ends[job_id] != wanted:
            yield Violation("doubled" if ends[job_id] > wanted else "untold", job_id, f"{ends[job_id]} webhooks tell its end")


def _last_state(delivery: Delivery, tries: list[Told]) -> Iterator[Violation]:
    accepted = any(told.answer is not None and 200 <= told.answer < 300 for told in tries)
    if delivery.state == "pending":
        yield Violation("undelivered", delivery.message_id, "is still on its way")
    if delivery.state == "delivered" and not accepted:
        yield Violation("untrue delivery", delivery.message_id, "on record as delivered, but nobody took it")
    if delivery.state == "dead" and accepted:
        yield Violation("untrue delivery", delivery.message_id, "on record as dead, but it was taken")
