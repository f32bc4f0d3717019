"""The Celery app of both kinds of worker, and where a worker's parts are put together.

A render worker (`python -m worker.guardian` starts it) consumes one model's queue; a courier consumes the deliveries and
runs the sweep. Which of the two a process is, is decided by the queue it was started with: only a render worker gets a
pulse from its guardian, and only there is the pipeline, and with it torch, imported.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading

from celery import signals
from redis import Redis

from shared.errors import GranuleError, SettingsInvalid
from shared.job_store import connect_store
from shared.logs import configure_logging
from shared.manifest import load_catalog
from shared.outbox import Outbox
from shared.queue import DELIVER_TASK, RENDER_TASK, make_celery
from shared.redis_client import connect
from shared.settings import load_settings
from shared.storage import connect_storage
from worker.courier import deliver
from worker.pulse import Pulse, Ready
from worker.runner import run_job
from worker.station import Station
from worker.sweep import Sweep

log = logging.getLogger(__name__)

settings = load_settings()
app = make_celery(settings)


@functools.cache
def _redis() -> Redis:
    return connect(settings.redis_url, timeout_s=settings.redis_timeout_s)


@functools.cache
def _outbox() -> Outbox:
    return Outbox(_redis(), prefix=settings.redis_prefix)


@functools.cache
def _station() -> Station:
    """Build everything a render worker works with. Takes as long as the weights take to load."""
    from worker.pipeline import load_pipeline

    if settings.pulse_fd is None or settings.worker_name is None:
        raise SettingsInvalid("a render worker is started by its guardian: python -m worker.guardian")
    manifest = load_catalog(settings.models_dir).by_slug(settings.model)
    return Station(
        name=settings.worker_name,
        manifest=manifest,
        store=connect_store(settings, _redis()),
        storage=connect_storage(settings),
        pipeline=load_pipeline(manifest, settings),
        pulse=Pulse(settings.pulse_fd),
        publish_limit_s=settings.publish_limit_s,
    )


@app.task(name=RENDER_TASK)
def render(job_id: str) -> None:
    """Render one job, if the record says that it is there to be rendered."""
    run_job(job_id, _station())


@app.task(name=DELIVER_TASK)
def deliver_webhook(delivery_id: str) -> None:
    """Try one webhook delivery, if the outbox says that it is still to be tried."""
    deliver(delivery_id, outbox=_outbox(), settings=settings)


@signals.setup_logging.connect
def _own_logging(**_: object) -> None:
    configure_logging(settings)


@signals.worker_init.connect
def _get_ready(**_: object) -> None:
    """Prepare before the first message is taken: a worker that is not ready consumes nothing."""
    try:
        if settings.pulse_fd is None:
            _start_sweep()
        else:
            station = _station()
            station.pulse.start_pinging()
            station.pulse.send(Ready(device=str(station.pipeline.provenance["device"])))
    except GranuleError as error:
        log.critical("this worker cannot work: %s", error)
        sys.exit(os.EX_CONFIG)


def _start_sweep() -> None:
    sweep = Sweep(
        store=connect_store(settings, _redis()),
        outbox=_outbox(),
        storage=connect_storage(settings),
        catalog=load_catalog(settings.models_dir),
        celery=app,
        lease_s=settings.lease_s,
    )
    stop = threading.Event()
    signals.worker_shutdown.connect(lambda **_: stop.set(), weak=False)
    threading.Thread(target=sweep.run, args=(stop,), name="sweep", daemon=True).start()
