"""The job record in Redis: the only module, with `shared/lua/`, that knows its keys.

Every move of a job is one Lua script. It is atomic, runs on Redis's clock, refuses what `shared.jobs.TRANSITIONS` does not
allow, and can be replayed when its reply was lost. A worker's writes carry the fence it got with `claim`; a write with an
older fence is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from typing import Any, cast

from redis import Redis

from shared.errors import IdempotencyConflict, NotFound, QueueFull
from shared.jobs import Job, JobError, JobSpec, Lane, Result, Status
from shared.redis_client import Scripts, answering
from shared.settings import Settings

IDEMPOTENCY_TTL_S = 24 * 3600
RECENT_TTL_S = 300
LOG_MAX_BYTES = 16_384
LOGS_EVENT_INTERVAL_MS = 500
WAIT_POLL_S = 1.0


class Beat(IntEnum):
    """What a worker is told when it shows a sign of life."""

    LOST = 0
    """The job is no longer this worker's: stop, and publish nothing."""
    HELD = 1
    """Go on."""
    CANCEL = 2
    """Go on to cancel: its owner called the job off."""


class Finish(IntEnum):
    """What became of an attempt to end a job."""

    REFUSED = 0
    """Another fence holds or ended the job: whatever this attempt uploaded must be removed."""
    DONE = 1
    """The job ended with this outcome."""
    ALREADY_DONE = 2
    """This same fence had ended it before; only the reply was lost. Its uploads are the published ones."""


@dataclass(frozen=True, slots=True)
class Created:
    """Answer to `create`: the job, whether this call made it or an earlier one did, and how many are served before it."""

    job: Job
    is_new: bool
    queue_position: int | None

    @property
    def job_id(self) -> str:
        """The job's id, which is not the one asked for when an earlier call made it."""
        return self.job.id


class JobStore:
    """Job records on one Redis. Safe to share between threads.

    All methods raise StoreUnavailable when Redis does not answer in time; the move may or may not have been made, and
    calling again with the same arguments is safe.
    """

    def __init__(
        self, redis: Redis, *, prefix: str = "granule:", retention_s: float, lease_s: float, max_attempts: int
    ) -> None:
        self._redis = redis
        self._scripts = Scripts(redis, prelude="prelude")
        self._prefix = prefix
        self._retention_ms = int(retention_s * 1000)
        self._lease_ms = int(lease_s * 1000)
        self._max_attempts = max_attempts

    # -- moves made for a caller

    def create(
        self,
        spec: JobSpec,
        *,
        body_hash: str,
        queue_max_jobs: int,
        idempotency_key: str | None = None,
        repeat_window_s: float = 0.0,
    ) -> Created:
        """Record a job in one atomic step; it is queued from then on, whether or not a message about it gets through.

        With `repeat_window_s` (at most 300) the tenant's last job of the same body is the answer, if it is not older and
        did not fail: for requests that look like the repeat of one whose answer got lost.

        Raises:
            IdempotencyConflict: the key, or the id, was used for a different body.
            QueueFull: `queue_max_jobs` jobs of this model are waiting; nothing was recorded.
        """
        events = "," + ",".join(spec.webhook_events) + ","
        answer = self._run(
            "create", spec.id, spec.to_json(), spec.model, spec.lane, spec.tenant, body_hash, idempotency_key or "",
            IDEMPOTENCY_TTL_S * 1000, queue_max_jobs, spec.webhook or "", events, spec.file_token,
            int(repeat_window_s * 1000) or -1, RECENT_TTL_S * 1000, int((spec.cancel_after_s or 0) * 1000),
        )  # fmt: skip
        match answer:
            case ["created" | "same" as outcome, record, position]:
                return Created(_job_from(record), outcome == "created", _position_from(position))
            case ["full", depth]:
                raise QueueFull(f"{depth} jobs are waiting for {spec.model}; try again later", retry_after_s=30)
        raise IdempotencyConflict("this idempotency key was used before with a different body", field="Idempotency-Key")

    def cancel(self, job_id: str, reason: JobError | None = None) -> None:
        """Call a job off: a waiting one is canceled at once, a running one when its worker lets go, an ended one never.

        Raises:
            NotFound: there is no such job.
        """
        if not self._run("cancel", job_id, self._retention_ms, _error_json(reason)):
            raise NotFound(f"no prediction {job_id!r}")

    # -- moves made by a worker

    def claim(self, job_id: str, *, worker: str, delivery_token: str) -> Job | None:
        """Move a job from queued to running for this worker, or return None.

        None means there is nothing to do for this delivery: the job ended, was canceled, or another worker has it. The
        returned job's `fence` must go with every later write. `delivery_token` is unique to one delivery of one message; a
        second call with it gets the same claim.
        """
        fields = self._run("claim", job_id, worker, delivery_token, self._lease_ms)
        return _job_from(fields) if fields else None

    def renew(self, job_id: str, fence: int, *, step: int | None = None, log: str = "") -> Beat:
        """Extend the lease, and record the step reached and a log line (ended by a newline) if given."""
        step_text = "" if step is None else str(step)
        return Beat(self._run("renew", job_id, fence, self._lease_ms, step_text, log, LOG_MAX_BYTES, LOGS_EVENT_INTERVAL_MS))

    def succeed(self, job_id: str, fence: int, result: Result) -> Finish:
        """End a running job with its pictures."""
        return self._finish(job_id, fence, Status.SUCCEEDED, result.to_json(), "")

    def fail(self, job_id: str, fence: int, error: JobError) -> Finish:
        """End a running job with the reason it cannot be rendered."""
        return self._finish(job_id, fence, Status.FAILED, "", _error_json(error))

    def let_go(self, job_id: str, fence: int) -> Finish:
        """End a running job as canceled: its worker has stopped."""
        return self._finish(job_id, fence, Status.CANCELED, "", "")

    def release(self, job_id: str, fence: int) -> Status | None:
        """Give a running job back uncharged, to be served before all others. None: it was no longer this worker's."""
        return _status_or_none(self._run("release", job_id, fence, self._retention_ms))

    # -- moves made by the sweep

    def expire(self, job_id: str, *, fence: int | None = None) -> Status | None:
        """Take a running job from a dead worker: queued again, or failed after too many crashes. Returns the new status.

        Without `fence` only a job whose lease ran out is taken; with it, the caller vouches for the death of that claim.
        None means the job was left alone.
        """
        error = JobError("worker_lost", f"the render worker died or broke down {self._max_attempts} times over this job")
        fence_text = "" if fence is None else str(fence)
        return _status_or_none(
            self._run("expire", job_id, fence_text, self._max_attempts, _error_json(error), self._retention_ms)
        )

    def expired_leases(self, limit: int = 100) -> list[str]:
        """Ids of running jobs whose lease has run out, oldest first."""
        return self._due("leases", limit)

    def server_uptime_s(self) -> int:
        """How long Redis has been up, in whole seconds."""
        with answering():
            return int(self._redis.info("server")["uptime_in_seconds"])

    def lost(self, model: str, message_lists: Sequence[str], *, grace_s: float = 3.0, limit: int = 100) -> list[str]:
        """Ids of waiting jobs of a model whose Celery message was lost, to be published again by the caller.

        `message_lists` are the Redis lists that hold the model's messages. A job once returned is not returned again for
        `grace_s` seconds, a time that doubles with each return up to a minute.
        """
        return cast("list[str]", self._run("lost", "", model, int(grace_s * 1000), limit, *message_lists))

    def overdue(self, limit: int = 100) -> list[str]:
        """Ids of jobs that have not ended by their deadline."""
        return self._due("deadlines", limit)

    def expiring(self, limit: int = 100) -> list[str]:
        """Ids of ended jobs whose retention is over."""
        return self._due("expiring", limit)

    def remove_data(self, job: Job) -> bool:
        """Forget an ended job's input, logs and outputs; the row stays readable. False: the job has not ended."""
        spec = replace(job.spec, input={}, render=replace(job.spec.render, prompt="", negative_prompt=None), mix=[])
        result = replace(job.result, outputs=[]).to_json() if job.result else ""
        return bool(self._run("remove", job.id, spec.to_json(), result))

    # -- reading

    def get(self, job_id: str) -> Job:
        """Return a job. Raises NotFound."""
        with answering():
            fields = cast("dict[str, str]", self._redis.hgetall(self._key(f"job:{job_id}")))
        if not fields:
            raise NotFound(f"no prediction {job_id!r}")
        return Job.from_fields(fields)

    def view(self, job_id: str) -> tuple[Job, int | None]:
        """Return a job and how many are served before it (None: it is not waiting), in one round trip. Raises NotFound."""
        record, position = self._run("view", job_id)
        if not record:
            raise NotFound(f"no prediction {job_id!r}")
        return _job_from(record), _position_from(position)

    def by_file_token(self, token: str) -> Job:
        """Return the job whose file URLs carry this token. Raises NotFound."""
        with answering():
            job_id = cast("str | None", self._redis.get(self._key(f"file:{token}")))
        if job_id is None:
            raise NotFound("no such file")
        return self.get(job_id)

    def list_jobs(
        self,
        tenant: str,
        *,
        before_seq: int | None = None,
        after_seq: int | None = None,
        oldest: bool = False,
        limit: int = 100,
    ) -> list[Job]:
        """Return up to `limit` of a tenant's jobs numbered strictly between the two, newest first.

        Where more fit, they are the newest of them, or with `oldest` those that come right after `after_seq`.
        """
        low = "-inf" if after_seq is None else f"({after_seq}"
        high = "+inf" if before_seq is None else f"({before_seq}"
        key = self._key(f"jobs:{tenant}")
        with answering():
            if oldest:
                ids = cast("list[str]", self._redis.zrangebyscore(key, low, high, 0, limit))[::-1]
            else:
                ids = cast("list[str]", self._redis.zrevrangebyscore(key, high, low, 0, limit))
            pipe = self._redis.pipeline(transaction=False)
            for job_id in ids:
                pipe.hgetall(self._key(f"job:{job_id}"))
            records = cast("list[dict[str, str]]", pipe.execute())
        return [Job.from_fields(fields) for fields in records if fields]

    def seq_at(self, tenant: str, created_ms: int) -> int:
        """Return the number that a tenant's first job created at that moment or later has, or would have."""
        return int(self._run("seek", "", tenant, created_ms))

    def run_counts(self) -> dict[str, int]:
        """How many jobs of each model were ever recorded."""
        with answering():
            counts = cast("dict[str, str]", self._redis.hgetall(self._key("runs")))
        return {model: int(count) for model, count in counts.items()}

    def position(self, job: Job) -> int | None:
        """How many jobs of its model are served before this one (0: it is next), or None when it is not waiting."""
        return self.view(job.id)[1]

    def depth(self, model: str) -> int:
        """How many jobs of a model are waiting."""
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            for lane in Lane:
                pipe.zcard(self._queued_key(model, lane))
            return sum(pipe.execute())

    def wait(self, job_id: str, timeout_s: float) -> Job:
        """Return the job as soon as it has ended, or as it is after `timeout_s` seconds. Raises NotFound."""
        deadline = time.monotonic() + timeout_s
        with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]
            with answering():
                subscription.subscribe(self._key(f"changed:{job_id}"))
            while True:
                job = self.get(job_id)
                left_s = deadline - time.monotonic()
                if job.status.is_terminal or left_s <= 0:
                    return job
                # The message is only a nudge: the record is read again after every one, and once a second without any.
                with answering():
                    subscription.get_message(timeout=min(left_s, WAIT_POLL_S))

    # -- inside

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _queued_key(self, model: str, lane: Lane) -> str:
        return self._key(f"queued:{model}:{lane}")

    def _finish(self, job_id: str, fence: int, status: Status, result: str, error: str) -> Finish:
        return Finish(self._run("finish", job_id, fence, status, result, error, self._retention_ms))

    def _due(self, name: str, limit: int) -> list[str]:
        with answering():
            seconds, micros = self._redis.time()
            now_ms = seconds * 1000 + micros // 1000
            return cast("list[str]", self._redis.zrangebyscore(self._key(name), "-inf", now_ms, 0, limit))

    def _run(self, script: str, job_id: str, *args: str | int) -> Any:
        return self._scripts.run(script, self._prefix, job_id, *args)


def connect_store(settings: Settings, redis: Redis) -> JobStore:
    """Build the store as the settings say. Nothing is sent yet."""
    return JobStore(
        redis,
        prefix=settings.redis_prefix,
        retention_s=settings.retention_s,
        lease_s=settings.lease_s,
        max_attempts=settings.max_attempts,
    )


def _job_from(flat: list[str]) -> Job:
    return Job.from_fields(dict(zip(flat[::2], flat[1::2], strict=True)))


def _position_from(reply: int) -> int | None:
    return None if reply < 0 else reply


def _status_or_none(text: str) -> Status | None:
    return Status(text) if text else None


def _error_json(error: JobError | None) -> str:
    return "" if error is None else json.dumps(asdict(error), ensure_ascii=False)
