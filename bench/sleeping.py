"""Workers whose model sleeps instead of drawing, and then hands out the same painted tile of 1024 x 1024.

`app` is Granule's worker with nothing but the model replaced: `python -m worker.guardian --app bench.sleeping`. With
`BENCH_PLAIN=1` it is what a plain Celery task would do instead: draw, encode and upload, then the next.

Every time it draws, it appends a line to the file `BENCH_LOG`: when that began and ended, in monotonic seconds.
`BENCH_RENDER_S` is how long the model sleeps for a picture, in `STEPS` equal naps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cached_property

from celery import Celery

from bench.sleeper import STEPS, Picture, Sleeper
from bench.tiles import painted_tile
from shared.jobs import RenderSpec
from shared.manifest import Manifest
from shared.queue import RENDER_TASK, make_celery
from shared.settings import Settings, load_settings
from shared.storage import connect_storage
from worker.assembly import make_worker
from worker.images import encode


class LoggingSleeper(Sleeper):
    """A sleeper that notes when it draws."""

    def __init__(self) -> None:
        super().__init__(painted_tile(), float(os.environ["BENCH_RENDER_S"]))
        self._log = open(os.environ["BENCH_LOG"], "a", buffering=1, encoding="utf-8")  # open while it works

    def render(self, spec: RenderSpec, on_step: Callable[[int, int], None]) -> Picture:
        """Sleep, and report every nap as a step."""
        began_s = time.monotonic()
        picture = super().render(spec, on_step)
        self._log.write(f"{began_s:.6f} {time.monotonic():.6f}\n")
        return picture


class PlainTask:
    """What a Celery task does that knows nothing of jobs: no record, no lease, no progress, no composition."""

    def __init__(self, settings: Settings) -> None:
        self._storage = connect_storage(settings)

    @cached_property
    def _pipeline(self) -> LoggingSleeper:
        return LoggingSleeper()

    def render(self, job_id: str) -> None:
        """Draw, encode, upload."""
        picture = self._pipeline.render(PLAIN_SPEC, lambda step, steps: None)
        encoded = encode(picture.pixels, output_format="png", output_quality=90, parameters={})
        self._storage.put(f"plain/{job_id}.png", encoded.data, content_type=encoded.content_type, metadata={})


PLAIN_SPEC = RenderSpec("50% red, 30% black, 20% pearl", None, 0, STEPS, 7.0, 1024, 1024, "png", 90)


def load_sleeping(manifest: Manifest, settings: Settings) -> LoggingSleeper:
    """Stand in for the pipeline's loader."""
    return LoggingSleeper()


def make_plain(settings: Settings) -> Celery:
    """Build a Celery app with the plain task under the name of Granule's own."""
    app = make_celery(settings)
    app.task(name=RENDER_TASK)(PlainTask(settings).render)
    return app


app = make_plain(load_settings()) if os.environ.get("BENCH_PLAIN") else make_worker(load_settings(), load_sleeping)
