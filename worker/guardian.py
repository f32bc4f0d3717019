"""The guardian: parent of one render worker, from outside torch's reach.

It renews the leases of the jobs that the worker holds, so that no long call in the worker can lose them; sees the worker's
death at once, by the end of the pipe between them, and gives its jobs back; kills a worker that froze or hangs; starts a new
one; and has none while an operator wants it drained. `python -m worker.guardian` is the entry point of a render worker; torch
is never imported here.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from celery import Celery

from shared.errors import GranuleError, StoreUnavailable
from shared.job_store import JobStore, connect_store
from shared.jobs import Lane, Status
from shared.logs import configure_logging
from shared.queue import enqueue_render, make_celery, render_queue
from shared.redis_client import connect
from shared.settings import Settings, load_settings
from shared.worker_registry import DeviceMemory, Standing, WorkerInfo, WorkerRegistry, connect_workers
from worker.drained_port import answering_as_drained
from worker.pulse import Ready, parse
from worker.watched import Held, Verdict, Watched

log = logging.getLogger("granule.guardian")

TICK_S = 0.5
STABLE_S = 60.0
BACKOFF_MAX_S = 30.0


@dataclass
class Child:
    """The worker's process, this end of the pipe from it, and what is known of it."""

    process: subprocess.Popen[bytes]
    pipe_fd: int
    watched: Watched
    unread: bytes = b""
    told_s: float | None = None
    """When it was told to end itself, or last held something after that."""
    verdict: Verdict | None = None


class Guardian:
    """Keeps one render worker alive and its jobs' leases renewed.

    `command` starts the worker; it inherits the write end of a pipe, whose number is in `GRANULE_PULSE_FD`, and finds its
    name in `GRANULE_WORKER_NAME`. `clock` is monotonic seconds.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        settings: Settings,
        store: JobStore,
        workers: WorkerRegistry,
        celery: Celery,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = list(command)
        self._settings = settings
        self._store = store
        self._workers = workers
        self._celery = celery
        self._clock = clock
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._device = ""
        self._is_drained = False
        self._shown: tuple[Standing, float] | None = None
        self._stop_since_s: float | None = None

    def stop(self) -> None:
        """Let the worker finish what it holds and then end; after the grace its jobs are given back. Callable from a signal."""
        if self._stop_since_s is None:
            self._stop_since_s = self._clock()

    def _stopping(self) -> bool:
        return self._stop_since_s is not None

    def run(self) -> int:
        """Start workers until told to stop, or until one says that it cannot work. Returns the exit status for the process."""
        try:
            return self._keep_one()
        finally:
            with contextlib.suppress(StoreUnavailable):
                self._workers.retire(self._name)

    def _keep_one(self) -> int:
        backoff_s = 1.0
        while not self._stopping():
            if self._is_drained:
                self._rest()
                continue
            child = self._start()
            self._watch(child)
            self._bury(child)
            if self._stopping() or self._is_drained:
                continue
            status = child.process.returncode
            if status == os.EX_CONFIG:
                return os.EX_CONFIG  # wrong settings or weights: another worker would say the same
            stable = child.watched.proved or self._clock() - child.watched.started_s > STABLE_S
            backoff_s = 1.0 if stable else min(backoff_s * 2, BACKOFF_MAX_S)
            log.warning("the render worker ended with status %s; a new one starts in %.0f s", status, backoff_s)
            self._pause(backoff_s)
        return 0

    # -- one worker's life

    def _start(self) -> Child:
        read_fd, write_fd = os.pipe()
        environment = os.environ | {"GRANULE_PULSE_FD": str(write_fd), "GRANULE_WORKER_NAME": self._name}
        # transformers warns at import, before any code of ours runs, of image processors that are not used here.
        environment.setdefault("TRANSFORMERS_VERBOSITY", "error")
        process = subprocess.Popen(self._command, env=environment, pass_fds=[write_fd])
        os.close(write_fd)
        now_s = self._clock()
        return Child(process, read_fd, Watched(self._name, started_s=now_s, pinged_s=now_s))

    def _watch(self, child: Child) -> None:
        """Read the worker's pulse and act on it until the pipe ends."""
        while self._read(child):
            if (self._stopping() or self._is_drained) and child.told_s is None:
                log.info("render worker %s is told to end what it holds", child.watched.name)
                child.process.send_signal(signal.SIGTERM)
                child.told_s = self._clock()
            if child.told_s is not None and child.watched.held:
                child.told_s = self._clock()
            # Before the leases: a Redis that keeps the guardian waiting would look like a silent worker.
            verdict = self._must_die(child)
            if verdict is not None and child.verdict is None:
                log.error("killing the render worker %s: %s", child.watched.name, verdict.reason)
                child.verdict = verdict
                child.process.kill()
            # One that the driver keeps from dying holds its jobs no longer than their leases.
            if child.verdict is None:
                self._renew(child.watched)
                if not self._stopping():
                    self._show(_standing(child), child.watched)

    def _read(self, child: Child) -> bool:
        """Take in what the worker sent within one tick. False: the worker is dead, and all that it sent was read."""
        ready, _, _ = select.select([child.pipe_fd], [], [], TICK_S)
        if not ready:
            # A process that the worker started may outlive it and keep the pipe open.
            return child.process.poll() is None
        data = os.read(child.pipe_fd, 65_536)
        *lines, child.unread = (child.unread + data).split(b"\n")
        for line in lines:
            self._note(child.watched, line)
        return bool(data)

    def _note(self, watched: Watched, line: bytes) -> None:
        now_s, message = self._clock(), parse(line)
        broken = watched.note(message, now_s)
        if broken is not None:
            log.error("render worker %s broke over job %s", watched.name, broken.job_id, extra={"job_id": broken.job_id})
            self._charge(broken)
        if isinstance(message, Ready):
            self._device = message.device
            log.info("render worker %s is ready on %s after %.1f s", watched.name, message.device, now_s - watched.started_s)

    def _renew(self, watched: Watched) -> None:
        """Keep the leases of what the worker holds, once a heartbeat each."""
        now_s, heartbeat_s = self._clock(), self._settings.heartbeat_s
        try:
            for held in list(watched.held.values()):
                if now_s - held.renewed_s >= heartbeat_s:
                    # Noted when it is done: a renewal that failed is tried at the next tick, for the lease may end soon.
                    self._store.renew(held.job_id, held.fence)
                    held.renewed_s = now_s
        except StoreUnavailable as error:
            log.warning("a lease could not be renewed: %s", error)

    def _show(self, standing: Standing, watched: Watched | None = None) -> None:
        """Show that the worker lives, once a heartbeat and whenever its standing changes, and hear whether it is drained.

        While Redis is away what was heard last counts.
        """
        now_s = self._clock()
        if self._shown is not None and self._shown[0] is standing and now_s - self._shown[1] < self._settings.heartbeat_s:
            return
        self._shown = standing, now_s
        info = WorkerInfo(self._name, self._settings.model, self._device, standing=standing)
        if watched is not None:
            info = replace(info, busy_s=watched.duty.busy_s, starved_s=watched.duty.starved_s, memory=_memory(watched))
        try:
            self._is_drained = self._workers.beat(info)
        except StoreUnavailable as error:
            log.warning("no sign of life could be given: %s", error)

    def _rest(self) -> None:
        """Wait, without a worker, until the operator who drained it resumes it."""
        log.info("render worker %s is drained", self._name)
        with answering_as_drained(self._settings.metrics_host, self._settings.metrics_port):
            while self._is_drained and not self._stopping():
                self._show(Standing.DRAINED)
                time.sleep(TICK_S)
        log.info("render worker %s is resumed", self._name)

    def _must_die(self, child: Child) -> Verdict | None:
        grace_s, watched = self._settings.grace_s, child.watched
        if self._stop_since_s is not None and self._clock() - self._stop_since_s > grace_s:
            self._hand_back(watched)
            return Verdict(f"still busy {grace_s:.0f} s after it was told to stop")
        if child.told_s is not None and self._clock() - child.told_s > grace_s:
            return Verdict(f"still there {grace_s:.0f} s after it was told to end and had nothing in hand")
        return watched.must_die(self._clock(), self._settings)

    # -- what becomes of its jobs

    def _hand_back(self, watched: Watched) -> None:
        """Give its jobs back uncharged: it is the operator who stops the worker, not a job that broke it."""
        for held in _taken(watched):
            self._release(held)

    def _bury(self, child: Child) -> None:
        """The worker is dead: give its jobs to others at once, then clear away what is left of it.

        Only what it died over is charged, a job or those that were drawn together, where that is known. Where it is not, all
        are; the worker that gets one of them next draws it alone, so that the one to blame meets no innocent twice.
        """
        watched = child.watched
        culprits = child.verdict.culprits if child.verdict is not None else ()
        is_known = watched.excused or bool(culprits)
        for held in _taken(watched):
            log.error("render worker %s died while it held job %s", watched.name, held.job_id, extra={"job_id": held.job_id})
            if is_known and not any(held is culprit for culprit in culprits):
                self._release(held)
            else:
                self._charge(held)
        os.close(child.pipe_fd)
        child.process.kill()
        child.process.wait()
        self._shown = None
        with contextlib.suppress(StoreUnavailable):
            self._workers.leave(watched.name)

    def _charge(self, held: Held) -> None:
        """Take a job away from the worker, with a crash on its account."""
        with self._patience("expire", held):
            self._publish(held, self._store.expire(held.job_id, fence=held.fence))

    def _release(self, held: Held) -> None:
        """Take a job away from the worker, with nothing on its account."""
        with self._patience("hand back", held):
            self._publish(held, self._store.release(held.job_id, held.fence))

    def _publish(self, held: Held, status: Status | None) -> None:
        if status is Status.QUEUED:
            enqueue_render(self._celery, held.job_id, model=self._settings.model, lane=Lane.RECOVERY)

    @contextlib.contextmanager
    def _patience(self, move: str, held: Held) -> Iterator[None]:
        """A move that cannot be made now is made by the sweep when the lease runs out."""
        try:
            yield
        except GranuleError as error:
            log.warning("could not %s job %s: %s; the sweep will", move, held.job_id, error, extra={"job_id": held.job_id})

    def _pause(self, seconds: float) -> None:
        end_s = self._clock() + seconds
        while not (self._stopping() or self._is_drained) and self._clock() < end_s:
            # A worker that never gets ready is to be seen, and to be drained.
            self._show(Standing.STARTING)
            time.sleep(TICK_S)


def _standing(child: Child) -> Standing:
    if child.told_s is not None:
        return Standing.DRAINING
    return Standing.STARTING if child.watched.device is None else Standing.READY


def _memory(watched: Watched) -> DeviceMemory | None:
    told = watched.memory
    return None if told is None else DeviceMemory(told.free_bytes, told.total_bytes, told.peak_bytes)


def _taken(watched: Watched) -> list[Held]:
    """Take all jobs out of what a worker holds, the longest held first."""
    taken = list(watched.held.values())
    watched.held.clear()
    return taken


def main() -> int:
    """Run the guardian of one render worker of the configured model until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m worker.guardian", description="Runs one render worker and guards it.")
    parser.add_argument("--app", default="worker.tasks", help="module of the Celery app (default: %(default)s)")
    app = parser.parse_args().app
    settings = load_settings()
    configure_logging(settings)
    redis = connect(settings.redis_url, timeout_s=settings.redis_timeout_s, sentinels=settings.redis_sentinels)
    guardian = Guardian(
        worker_command(settings, app),
        settings=settings,
        store=connect_store(settings, redis),
        workers=connect_workers(settings, redis),
        celery=make_celery(settings),
    )
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: guardian.stop())
    return guardian.run()


def worker_command(settings: Settings, app: str) -> list[str]:
    """Return the Celery command line of a render worker: one process, one job at a time, this model's queue only."""
    options = ["--pool", "solo", "--concurrency", "1", "--queues", render_queue(settings.model)]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", settings.log_level]
    return [sys.executable, "-m", "celery", "--quiet", "--app", app, "worker", *options, *quiet]


if __name__ == "__main__":
    sys.exit(main())
