"""The guardian: parent of one render worker, from outside torch's reach.

It renews the lease of the job that the worker holds, so that no long call in the worker can lose it; sees the worker's death
at once, by the end of the pipe between them, and gives the job back; kills a worker that froze or hangs; and starts a new
one. `python -m worker.guardian` is the entry point of a render worker; torch is never imported here.
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
from dataclasses import dataclass, field

from celery import Celery

from shared.errors import GranuleError, StoreUnavailable
from shared.job_store import JobStore, connect_store
from shared.jobs import Lane, Status
from shared.logs import configure_logging
from shared.queue import enqueue_render, make_celery, render_queue
from shared.redis_client import connect
from shared.settings import Settings, load_settings
from shared.worker_registry import WorkerInfo, WorkerRegistry, connect_workers
from worker.pulse import Holding, Idle, Ping, Ready, Step, parse

log = logging.getLogger("granule.guardian")

TICK_S = 0.5
STABLE_S = 60.0
BACKOFF_MAX_S = 30.0


@dataclass
class Watched:
    """What the guardian knows of the worker it started. Times are `time.monotonic()` seconds."""

    process: subprocess.Popen[bytes]
    pipe_fd: int
    name: str
    started_s: float
    device: str | None = None
    proved: bool = False
    """It brought a job to an end, so whatever ends it later is no failing start."""
    held: Holding | None = None
    held_since_s: float = 0.0
    moved_s: float = 0.0
    pinged_s: float = 0.0
    renewed_s: float = 0.0
    unread: bytes = field(default=b"")


class Guardian:
    """Keeps one render worker alive and its job's lease renewed.

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
        self._stop_since_s: float | None = None

    def stop(self) -> None:
        """Let the worker finish what it holds and then end; after the grace its job is given back. Callable from a signal."""
        if self._stop_since_s is None:
            self._stop_since_s = self._clock()

    def _stopping(self) -> bool:
        return self._stop_since_s is not None

    def run(self) -> int:
        """Start workers until told to stop, or until one says that it cannot work. Returns the exit status for the process."""
        backoff_s = 1.0
        while not self._stopping():
            watched = self._start()
            self._watch(watched)
            self._bury(watched)
            if self._stopping():
                break
            if watched.process.returncode == os.EX_CONFIG:
                return os.EX_CONFIG  # wrong settings or weights: another worker would say the same
            stable = watched.proved or self._clock() - watched.started_s > STABLE_S
            backoff_s = 1.0 if stable else min(backoff_s * 2, BACKOFF_MAX_S)
            log.warning(
                "the render worker ended with status %s; a new one starts in %.0f s", watched.process.returncode, backoff_s
            )
            self._pause(backoff_s)
        return 0

    # -- one worker's life

    def _start(self) -> Watched:
        read_fd, write_fd = os.pipe()
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        environment = os.environ | {"GRANULE_PULSE_FD": str(write_fd), "GRANULE_WORKER_NAME": name}
        # transformers warns at import, before any code of ours runs, of image processors that are not used here.
        environment.setdefault("TRANSFORMERS_VERBOSITY", "error")
        process = subprocess.Popen(self._command, env=environment, pass_fds=[write_fd])
        os.close(write_fd)
        now_s = self._clock()
        return Watched(process, read_fd, name, now_s, pinged_s=now_s)

    def _watch(self, watched: Watched) -> None:
        """Read the worker's pulse and act on it until the pipe ends."""
        told_to_stop = False
        while self._read(watched):
            if self._stopping() and not told_to_stop:
                watched.process.send_signal(signal.SIGTERM)
                told_to_stop = True
            self._renew(watched)
            reason = self._must_die(watched)
            if reason is not None:
                log.error("killing the render worker %s: %s", watched.name, reason)
                watched.process.kill()

    def _read(self, watched: Watched) -> bool:
        """Take in what the worker sent within one tick. False: the pipe ended."""
        ready, _, _ = select.select([watched.pipe_fd], [], [], TICK_S)
        if not ready:
            return True
        data = os.read(watched.pipe_fd, 65_536)
        *lines, watched.unread = (watched.unread + data).split(b"\n")
        for line in lines:
            self._note(watched, line)
        return bool(data)

    def _note(self, watched: Watched, line: bytes) -> None:
        now_s = self._clock()
        watched.pinged_s = now_s
        match parse(line):
            case Ready(device=device):
                watched.device = device
                log.info("render worker %s is ready on %s after %.1f s", watched.name, device, now_s - watched.started_s)
            case Holding() as held:
                watched.held, watched.held_since_s, watched.moved_s, watched.renewed_s = held, now_s, now_s, now_s
            case Step():
                watched.moved_s = now_s
            case Idle():
                watched.held, watched.proved = None, True
            case Ping():
                pass

    def _renew(self, watched: Watched) -> None:
        """Show that the worker lives, and keep the lease of what it holds, once a heartbeat."""
        now_s = self._clock()
        if watched.device is None or now_s - watched.renewed_s < self._settings.heartbeat_s:
            return
        watched.renewed_s = now_s
        try:
            if not self._stopping():
                self._workers.beat(WorkerInfo(watched.name, self._settings.model, watched.device))
            if watched.held is not None:
                self._store.renew(watched.held.job_id, watched.held.fence)
        except StoreUnavailable as error:
            log.warning("no sign of life could be given: %s", error)

    def _must_die(self, watched: Watched) -> str | None:
        now_s = self._clock()
        limits = self._settings
        if now_s - watched.pinged_s > limits.freeze_limit_s and watched.device is not None:
            return f"no pulse for {limits.freeze_limit_s:.0f} s"
        if watched.device is None and now_s - watched.started_s > limits.load_limit_s:
            return f"not ready after {limits.load_limit_s:.0f} s"
        if watched.held is not None and now_s - watched.held_since_s > limits.job_limit_s:
            return f"job {watched.held.job_id} has run for {limits.job_limit_s:.0f} s"
        if watched.held is not None and now_s - watched.moved_s > limits.step_limit_s:
            return f"job {watched.held.job_id} made no step for {limits.step_limit_s:.0f} s"
        if self._stop_since_s is not None and now_s - self._stop_since_s > limits.grace_s:
            self._hand_back(watched)
            return f"still busy {limits.grace_s:.0f} s after it was told to stop"
        return None

    # -- what becomes of its job

    def _hand_back(self, watched: Watched) -> None:
        """Give the job back uncharged: it is the operator who stops the worker, not the job that broke it."""
        held, watched.held = watched.held, None
        if held is None:
            return
        with self._patience("hand back", held):
            self._publish(held, self._store.release(held.job_id, held.fence))

    def _bury(self, watched: Watched) -> None:
        """The worker is dead: give its job to another at once, then clear away what is left of it."""
        held, watched.held = watched.held, None
        if held is not None:
            log.error("render worker %s died while it held job %s", watched.name, held.job_id, extra={"job_id": held.job_id})
            with self._patience("expire", held):
                self._publish(held, self._store.expire(held.job_id, fence=held.fence))
        os.close(watched.pipe_fd)
        watched.process.kill()
        watched.process.wait()
        with contextlib.suppress(StoreUnavailable):
            self._workers.leave(watched.name)

    def _publish(self, held: Holding, status: Status | None) -> None:
        if status is Status.QUEUED:
            enqueue_render(self._celery, held.job_id, model=self._settings.model, lane=Lane.RECOVERY)

    @contextlib.contextmanager
    def _patience(self, move: str, held: Holding) -> Iterator[None]:
        """A move that cannot be made now is made by the sweep when the lease runs out."""
        try:
            yield
        except GranuleError as error:
            log.warning("could not %s job %s: %s; the sweep will", move, held.job_id, error, extra={"job_id": held.job_id})

    def _pause(self, seconds: float) -> None:
        end_s = self._clock() + seconds
        while not self._stopping() and self._clock() < end_s:
            time.sleep(TICK_S)


def main() -> int:
    """Run the guardian of one render worker of the configured model until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m worker.guardian", description="Runs one render worker and guards it.")
    parser.add_argument("--app", default="worker.tasks", help="module of the Celery app (default: %(default)s)")
    app = parser.parse_args().app
    settings = load_settings()
    configure_logging(settings)
    redis = connect(settings.redis_url, timeout_s=settings.redis_timeout_s)
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
