"""Puts a worker together: the Celery app, its tasks, and what each kind of worker prepares before it takes a message.

A render worker consumes one model's queue, a courier the deliveries. Which of the two a process is shows in its settings:
only a render worker has a pulse to its guardian.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections.abc import Callable

from celery import Celery, signals
from celery.worker import state
from prometheus_client import start_http_server

from shared.errors import GranuleError, SettingsInvalid
from shared.job_store import connect_store
from shared.logs import configure_logging
from shared.manifest import Manifest, load_catalog
from shared.metrics import REGISTRY
from shared.outbox import Outbox
from shared.previews import connect_previews
from shared.queue import DELIVER_TASK, RENDER_TASK, make_celery
from shared.redis_client import connect
from shared.settings import Settings
from shared.storage import connect_storage
from shared.tracing import OFF, connect_tracer
from worker.batch_size import BatchSize
from worker.courier import deliver
from worker.duty import DutyMeter
from worker.pulse import Pulse, Ready
from worker.runner import WorkerBroken, run_jobs
from worker.spool import Spool
from worker.station import Pipeline, Station
from worker.sweep import Sweep

log = logging.getLogger(__name__)

LAST_MOMENT_S = 5.0
SWITCH_INTERVAL_S = 0.0005

LoadPipeline = Callable[[Manifest, Settings], Pipeline]


class Assembly:
    """The parts of one worker process, each built when it is first needed."""

    def __init__(self, settings: Settings, app: Celery, load_pipeline: LoadPipeline) -> None:
        self._settings = settings
        self._app = app
        self._load_pipeline = load_pipeline
        redis = connect(settings.redis_url, timeout_s=settings.redis_timeout_s, sentinels=settings.redis_sentinels)
        self._outbox = Outbox(redis, prefix=settings.redis_prefix)
        self._store = connect_store(settings, redis)
        self._previews = connect_previews(settings, redis)
        self._storage = connect_storage(settings)
        self._tracer = OFF

    @functools.cached_property
    def station(self) -> Station:
        """What a render worker works with. Takes as long as the weights take to load.

        Raises:
            SettingsInvalid: this process was not started by a guardian.
            WeightsInvalid: a file is refused or did not load in full.
        """
        settings = self._settings
        if settings.pulse_fd is None or settings.worker_name is None:
            raise SettingsInvalid("a render worker is started by its guardian: python -m worker.guardian")
        # How long a publisher may keep Python's lock when the thread that draws wants it. With the default the slowest of a
        # hundred short naps beside one was 2.7 ms too long, with this 0.5 ms.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        pulse = Pulse(settings.pulse_fd)
        # From here on, not only when it is ready: a worker whose guardian died while it loads must end too.
        pulse.start_pinging()
        manifest = load_catalog(settings.models_dir).by_slug(settings.model)
        # Where a first crash ends a job, no job may share a worker with one that could crash it.
        places = settings.spool_places if settings.max_attempts > 1 else 0
        # While the thread that draws publishes one picture of a batch, the others would look hung to the guardian.
        batch_size = manifest.render.batch_size if places else 1
        return Station(
            name=settings.worker_name,
            manifest=manifest,
            store=self._store,
            previews=self._previews,
            storage=self._storage,
            pipeline=self._load_pipeline(manifest, settings),
            pulse=pulse,
            spool=Spool(places, at_once=batch_size),
            duty=DutyMeter(),
            publish_limit_s=settings.publish_limit_s,
            is_stopping=lambda: state.should_stop is not None,
            batch_size=BatchSize(batch_size),
            tracer=self._tracer,
        )

    def get_ready(self, **_: object) -> None:
        """Prepare before the first message is taken; a worker that cannot get ready consumes nothing and ends."""
        is_courier = self._settings.pulse_fd is None
        try:
            # Before a courier's threads begin: there is to be one for all of them.
            self._tracer = connect_tracer(self._settings, "granule-courier" if is_courier else "granule-worker")
            if is_courier:
                self._start_sweep()
            else:
                self._store.announce_weights(self._settings.model, self.station.pipeline.provenance)
                self.station.pulse.send(Ready(device=str(self.station.pipeline.provenance["device"])))
                self.station.tell_memory()
        except GranuleError as error:
            log.critical("this worker cannot work: %s", error)
            sys.exit(os.EX_TEMPFAIL if error.retryable else os.EX_CONFIG)
        except BrokenPipeError:
            os._exit(os.EX_UNAVAILABLE)
        self._show_metrics()

    def render(self, job_id: str) -> None:
        """Draw what waits, the named job first. Ends the process when it can draw no more."""
        try:
            run_jobs(job_id, self.station)
        except WorkerBroken as error:
            log.critical("this worker ends: %s", error.__cause__)
            # What is drawn already deserves a moment; the guardian gives it to others if that does not do.
            self.station.spool.wait_until_empty(timeout_s=LAST_MOMENT_S)
            self._tracer.close()
            os._exit(os.EX_SOFTWARE)

    def deliver(self, delivery_id: str) -> None:
        """Try one webhook delivery."""
        deliver(delivery_id, outbox=self._outbox, settings=self._settings, tracer=self._tracer)

    def _show_metrics(self) -> None:
        """From now on, so that whoever finds the port open finds a worker that is ready.

        A port that is taken costs the figures of this process, not its work.
        """
        host, port = self._settings.metrics_host, self._settings.metrics_port
        if not port:
            return
        try:
            start_http_server(port, host, registry=REGISTRY)
        except OSError as error:
            log.error("metrics cannot be shown on %s:%d: %s", host, port, error)

    def _start_sweep(self) -> None:
        sweep = Sweep(
            store=self._store,
            outbox=self._outbox,
            storage=self._storage,
            catalog=load_catalog(self._settings.models_dir),
            celery=self._app,
            prefix=self._settings.redis_prefix,
        )
        stop = threading.Event()
        signals.worker_shutdown.connect(lambda **_: stop.set(), weak=False)
        sweep.start(stop)


def make_worker(settings: Settings, load_pipeline: LoadPipeline) -> Celery:
    """Build the Celery app of render workers and couriers. Nothing is connected or loaded before the worker starts.

    `load_pipeline` is called once, in the process that renders, and only there.
    """
    app = make_celery(settings)
    assembly = Assembly(settings, app, load_pipeline)
    app.task(name=RENDER_TASK)(assembly.render)
    app.task(name=DELIVER_TASK)(assembly.deliver)
    signals.setup_logging.connect(lambda **_: configure_logging(settings), weak=False)
    signals.worker_init.connect(assembly.get_ready, weak=False)
    return app
