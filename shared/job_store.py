"""The job record in Redis, moved from status to status. With `shared/job_reader.py` and `shared/lua/` alone it knows the keys.

Every move of a job is one Lua script. It is atomic, runs on Redis's clock, refuses what `shared.jobs.TRANSITIONS` does not
allow, and can be replayed when its reply was lost. A worker's writes carry the fence it got with `claim`; a write with an
older fence is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from typing import Any, cast

from redis import Redis

from shared.batching import FREE
from shared.errors import Gone, IdempotencyConflict, InputInvalid, NotFound, QueueFull
from shared.job_reader import JobReader, read_job, read_view
from shared.jobs import Job, JobError, JobSpec, Result, Status
from shared.outlook import Outlook
from shared.redis_client import answering
from shared.reuse import render_key, weights_digest
from shared.settings import Settings

IDEMPOTENCY_TTL_S = 24 * 3600
RECENT_TTL_S = 300
RETRY_WINDOW_S = 150
"""A client that counts its retries may have waited out a time-out of 60 s twice before it sends the same body again."""
LOG_MAX_BYTES = 16_384
LOGS_EVENT_INTERVAL_MS = 500


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
    """Answer to `create`: the job, whether this call made it or an earlier one did, and what to expect of it.

    With `source`, a succeeded job of the same order, the job is running in the caller's hands: copy the source's pictures and
    end it with `succeed_at_once`, or give it to the workers with `release`.
    """

    job: Job
    is_new: bool
    outlook: Outlook = Outlook()
    source: Job | None = None

    @property
    def job_id(self) -> str:
        """The job's id, which is not the one asked for when an earlier call made it."""
        return self.job.id


class JobStore(JobReader):
    """Job records on one Redis. Safe to share between threads.

    All methods raise StoreUnavailable when Redis does not answer in time; the move may or may not have been made, and
    calling again with the same arguments is safe.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str = "granule:",
        retention_s: float,
        lease_s: float,
        max_attempts: int,
        row_retention_s: float = 0.0,
        shares_results: bool = False,
    ) -> None:
        """With `shares_results` the pictures of one tenant may answer the orders of another."""
        super().__init__(redis, prefix=prefix)
        self._retention_ms = int(retention_s * 1000)
        self._row_retention_ms = int(row_retention_s * 1000)
        self._lease_ms = int(lease_s * 1000)
        self._max_attempts = max_attempts
        self._shares_results = shares_results

    # -- moves made for a caller

    def create(
        self,
        spec: JobSpec,
        *,
        body_hash: str,
        queue_max_jobs: int,
        tenant_max_jobs: int | None = None,
        idempotency_key: str | None = None,
        repeat_window_s: float = 0.0,
        retry: int | None = None,
        reuse: bool = False,
        traceparent: str | None = None,
    ) -> Created:
        """Record a job in one atomic step; it is queued from then on, whether or not a message about it gets through.

        With `repeat_window_s` (at most 300) the tenant's last job of the same body is the answer, if it is not older and
        did not fail: for requests that look like the repeat of one whose answer got lost. `retry` is how often the caller says
        that it sent this request before (at most 100; None: it does not count): above 0 the answer is the job that the
        request before it made, for two and a half minutes; where that one got QueueFull, a job is made. With `reuse` a stored
        picture of the same tenant's same order may be the answer: then the job waits in no queue, and `Created.source` has
        the picture. `traceparent` is kept beside the job, and decides nothing.

        Raises:
            IdempotencyConflict: the key, or the id, was used for a different body, or the id by another tenant.
            QueueFull: `queue_max_jobs` jobs of this model are waiting, or `tenant_max_jobs` of this tenant; nothing was
                recorded.
        """
        events = "," + ",".join(spec.webhook_events) + ","
        answer = self._run(
            "create", spec.id, spec.to_json(), spec.model, spec.lane, spec.tenant, body_hash, idempotency_key or "",
            IDEMPOTENCY_TTL_S * 1000, queue_max_jobs, spec.webhook or "", events, spec.file_token,
            int(repeat_window_s * 1000) or -1, RECENT_TTL_S * 1000, int((spec.cancel_after_s or 0) * 1000), render_key(spec),
            int(reuse), self._lease_ms, tenant_max_jobs or 0, int(self._shares_results), -1 if retry is None else retry,
            RETRY_WINDOW_S * 1000, traceparent or "",
        )  # fmt: skip
        match answer:
            case ["created" | "same" as outcome, *view]:
                job, outlook = read_view(spec.id, view)
                return Created(job, outcome == "created", outlook)
            case ["reused", record, source]:
                return Created(read_job(record), True, source=read_job(source))
            case ["tenant_full", depth]:
                raise QueueFull(f"{depth} jobs of {spec.tenant!r} are waiting; try again later", retry_after_s=30)
            case ["full", depth]:
                raise QueueFull(f"{depth} jobs are waiting for {spec.model}; try again later", retry_after_s=30)
            case ["taken"]:
                raise IdempotencyConflict("this id is taken; choose another", field="id")
            case ["other_body"]:
                raise IdempotencyConflict("this id belongs to a prediction with a different body", field="id")
        raise IdempotencyConflict("this idempotency key was used before with a different body", field="Idempotency-Key")

    def cancel(self, job_id: str, reason: JobError | None = None, *, unwanted: bool = False) -> None:
        """Call a job off: a waiting one is canceled at once, a running one when its worker lets go, an ended one never.

        With `unwanted` its data is due to be removed as soon as it has ended, however it ends.

        Raises:
            NotFound: there is no such job.
        """
        if not self._run("cancel", job_id, self._retention_ms, _error_json(reason), int(unwanted)):
            raise NotFound(f"no prediction {job_id!r}", field="prediction_id")

    def requeue(self, job_id: str) -> None:
        """Bring a dead job back (one that failed because its workers died over it), for an operator who removed the cause.

        It is queued again, to be served before others, with all its attempts before it and without its deadline. Its caller
        is told how it ends as if it had never ended before.

        Raises:
            NotFound: there is no such job.
            Gone: its data was removed.
            InputInvalid: it is not dead.
        """
        match self._run("requeue", job_id):
            case "":
                raise NotFound(f"no prediction {job_id!r}", field="prediction_id")
            case "removed":
                raise Gone("the data of this prediction has been removed")
            case "kept":
                raise InputInvalid("only a prediction whose workers died over it can be queued again", field="prediction_id")

    # -- moves made by a worker

    def announce_weights(self, model: str, provenance: Mapping[str, Any]) -> None:
        """Say which weights the model's workers draw with from now on: pictures drawn with others are not handed out again."""
        with answering():
            self._redis.hset(self._key("weights"), model, weights_digest(provenance))

    def claim(self, job_id: str, *, worker: str, delivery_token: str) -> Job | None:
        """Move a job from queued to running for this worker, or return None.

        None means there is nothing to do for this delivery: the job ended, was canceled, or another worker has it. The
        returned job's `fence` must go with every later write. `delivery_token` is unique to one delivery of one message; a
        second call with it gets the same claim.
        """
        fields = self._run("claim", job_id, worker, delivery_token, self._lease_ms)
        return read_job(fields) if fields else None

    def claim_next(self, model: str, *, worker: str, token: str) -> Job | None:
        """Move the first in line of a model's waiting jobs to running for this worker, or return None when none waits.

        `token` is unique to one call; a second call of the worker with it gets the same job.
        """
        return next(iter(self.claim_batch(model, worker=worker, token=token, size=1)), None)

    def claim_batch(self, model: str, *, worker: str, token: str, size: int) -> list[Job]:
        """Move the first in line to running for this worker, and with it those that it can be drawn together with.

        Returns a whole batch of `size` jobs where the first in line and those directly behind it in its lane allow one
        (`shared/batching.py`) and the lane is long enough for every live worker to have one; else the first alone, or none.
        `token` is unique to one call; a second call of the worker with it gets the same jobs, so far as they are still its own.
        """
        free = "," + ",".join(sorted(FREE)) + ","
        return [read_job(record) for record in self._run("claim_next", "", model, worker, token, self._lease_ms, size, free)]

    def renew(self, job_id: str, fence: int, *, step: int | None = None, log: str = "", log_from: int | None = None) -> Beat:
        """Extend the lease, and record the step reached and log lines (each ended by a newline) if given.

        `log_from` is how many bytes this attempt logged before `log`: what of it is on record already is passed over. Without
        it a log counts only together with a step that is new.
        """
        step_text, from_text = ("" if number is None else str(number) for number in (step, log_from))
        limits = LOG_MAX_BYTES, LOGS_EVENT_INTERVAL_MS
        return Beat(self._run("renew", job_id, fence, self._lease_ms, step_text, log, *limits, from_text))

    def succeed(self, job_id: str, fence: int, result: Result) -> Finish:
        """End a running job with its pictures."""
        return self._succeed(job_id, fence, result)[0]

    def succeed_at_once(self, job_id: str, fence: int, result: Result) -> Job | None:
        """End a job that `create` handed over, and return it as it has ended. None: it is no longer the caller's."""
        outcome, record = self._succeed(job_id, fence, result)
        return None if outcome is Finish.REFUSED else read_job(record)

    def fail(self, job_id: str, fence: int, error: JobError) -> Finish:
        """End a running job with the reason it cannot be rendered."""
        return self._finish(job_id, fence, Status.FAILED, "", _error_json(error))[0]

    def let_go(self, job_id: str, fence: int) -> Finish:
        """End a running job as canceled: its worker has stopped."""
        return self._finish(job_id, fence, Status.CANCELED, "", "")[0]

    def release(self, job_id: str, fence: int) -> Status | None:
        """Give a running job back uncharged, to be served before all others. None: it was no longer this worker's."""
        return _status_or_none(self._run("release", job_id, fence, self._retention_ms))

    # -- moves made by the sweep

    def is_amnesty(self) -> bool:
        """Whether leases must not be judged now, because Redis was away or frozen and their owners may not have renewed yet.

        To be asked again and again, several times in the time of a lease: longer silence is taken for such an absence.
        """
        return bool(self._run("amnesty", "", self._lease_ms // 2, self._lease_ms))

    def expire(self, job_id: str, *, fence: int | None = None) -> Status | None:
        """Take a running job from a dead worker: queued again, or failed after too many crashes. Returns the new status.

        Without `fence` only a job whose lease ran out is taken; with it, the caller vouches for the death of that claim. The
        crash is charged to the job unless nobody ever renewed the lease: then it was not begun.
        None means the job was left alone.
        """
        error = JobError("worker_lost", f"the render worker died or broke down {self._max_attempts} times over this job")
        fence_text = "" if fence is None else str(fence)
        return _status_or_none(
            self._run("expire", job_id, fence_text, self._max_attempts, _error_json(error), self._retention_ms)
        )

    def lost(self, model: str, message_lists: Sequence[str], *, grace_s: float = 3.0, limit: int = 100) -> list[str]:
        """Ids of waiting jobs of a model whose Celery message was lost, to be published again by the caller.

        `message_lists` are the Redis lists that hold the model's messages. A job once returned is not returned again for
        `grace_s` seconds, a time that doubles with each return up to a minute.
        """
        return cast("list[str]", self._run("lost", "", model, int(grace_s * 1000), limit, *message_lists))

    def remove_data(self, job: Job) -> bool:
        """Forget an ended job's logs, outputs, and what tells its input; its row stays for a while.

        False: it has not ended, or was queued again since `job` was read.
        """
        render = replace(job.spec.render, prompt="", negative_prompt=None, painted=())
        spec = replace(job.spec, input={}, render=render, mix=[], warnings=[], filename="")
        result = replace(job.result, outputs=[], thumbnails=[], composition=None).to_json() if job.result else ""
        return bool(self._run("remove", job.id, spec.to_json(), result, self._row_retention_ms, job.fence))

    def forget_leftovers(self, job_id: str) -> None:
        """Note that nothing is left in the bucket of attempts that did not end a job, unless it ended anew meanwhile."""
        self._run("forget", job_id)

    def purge(self, job_id: str) -> bool:
        """Forget the rest of a job whose data was removed: row, place in the list, file token. False: there was nothing."""
        return bool(self._run("purge", job_id))

    def set_aside(self, job_id: str) -> None:
        """Take a job that cannot be moved out of every index that the sweep goes through; its id stays in `broken`.

        One whose record cannot be read is no longer listed either.
        """
        with answering():
            pipe = self._redis.pipeline(transaction=True)
            for index in ("leases", "deadlines", "leftovers", "expiring", "rows"):
                pipe.zrem(self._key(index), job_id)
            pipe.sadd(self._key("broken"), job_id)
            pipe.execute()
        if self._readable([job_id]):
            return
        with answering():
            tenant = cast("str | None", self._redis.hget(self._key(f"job:{job_id}"), "tenant"))
            for listing in ("jobs", f"jobs:{tenant}"):
                self._redis.zrem(self._key(listing), job_id)

    # -- inside

    def _succeed(self, job_id: str, fence: int, result: Result) -> tuple[Finish, list[str]]:
        return self._finish(job_id, fence, Status.SUCCEEDED, result.to_json(), "", weights_digest(result.provenance))

    def _finish(
        self, job_id: str, fence: int, status: Status, result: str, error: str, weights: str = ""
    ) -> tuple[Finish, list[str]]:
        shares = int(self._shares_results)
        outcome, record = self._run("finish", job_id, fence, status, result, error, self._retention_ms, weights, shares)
        return Finish(outcome), record


def connect_store(settings: Settings, redis: Redis) -> JobStore:
    """Build the store as the settings say. Nothing is sent yet."""
    return JobStore(
        redis,
        prefix=settings.redis_prefix,
        retention_s=settings.retention_s,
        lease_s=settings.lease_s,
        max_attempts=settings.max_attempts,
        row_retention_s=settings.row_retention_s,
        shares_results=settings.reuse_across_tenants,
    )


def _status_or_none(text: str) -> Status | None:
    return Status(text) if text else None


def _error_json(error: JobError | None) -> str:
    return "" if error is None else json.dumps(asdict(error), ensure_ascii=False)
