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

from shared.errors import GranuleError, SettingsInvalid
from shared.job_store import connect_store
from shared.logs import configure_logging
from shared.manifest import Manifest, load_catalog
from shared.outbox import Outbox
from shared.queue import DELIVER_TASK, RENDER_TASK, make_celery
from shared.redis_client import connect
from shared.settings import Settings
from shared.storage import connect_storage
from worker.courier import deliver
from worker.pulse import Pulse, Ready
from worker.runner import run_job
from worker.station import Pipeline, Station
from worker.sweep import Sweep

log = logging.getLogger(__name__)

LoadPipeline = Callable[[Manifest, Settings], Pipeline]


def make_worker(settings: Settings, load_pipeline: LoadPipeline) -> Celery:
    """Build the Celery app of render workers and couriers. Nothing is connected or loaded before the worker starts.

    `load_pipeline` is called once, in the process that renders, and only there.
    """
    app = make_celery(settings)
    redis = connect(settings.redis_url, timeout_s=settings.redis_timeout_s)
    outbox = Outbox(redis, prefix=settings.redis_prefix)
    store = connect_store(settings, redis)
    storage = connect_storage(settings)

    @functools.cache
    def station() -> Station:
        if settings.pulse_fd is None or settings.worker_name is None:
            raise SettingsInvalid("a render worker is started by its guardian: python -m worker.guardian")
        manifest = load_catalog(settings.models_dir).by_slug(settings.model)
        return Station(
            name=settings.worker_name,
            manifest=manifest,
            store=store,
            storage=storage,
            pipeline=load_pipeline(manifest, settings),
            pulse=Pulse(settings.pulse_fd),
            publish_limit_s=settings.publish_limit_s,
        )

    def start_sweep() -> None:
        catalog = load_catalog(settings.models_dir)
        sweep = Sweep(store=store, outbox=outbox, storage=storage, catalog=catalog, celery=app, lease_s=settings.lease_s)
        stop = threading.Event()
        signals.worker_shutdown.connect(lambda **_: stop.set(), weak=False)
        threading.Thread(target=sweep.run, args=(stop,), name="sweep", daemon=True).start()

    @app.task(name=RENDER_TASK)
    def render(job_id: str) -> None:
        run_job(job_id, station())

    @app.task(name=DELIVER_TASK)
    def deliver_webhook(delivery_id: str) -> None:
        deliver(delivery_id, outbox=outbox, settings=settings)

    @signals.setup_logging.connect(weak=False)
    def own_logging(**_: object) -> None:
        configure_logging(settings)

    @signals.worker_init.connect(weak=False)
    def get_ready(**_: object) -> None:
        # Before the first message is taken: a worker that is not ready consumes nothing.
        try:
            if settings.pulse_fd is None:
                start_sweep()
            else:
                station().pulse.start_pinging()
                store.announce_weights(settings.model, station().pipeline.provenance)
                station().pulse.send(Ready(device=str(station().pipeline.provenance["device"])))
        except GranuleError as error:
            log.critical("this worker cannot work: %s", error)
            sys.exit(os.EX_CONFIG)

    return app
