"""The Celery app that `celery --app worker.tasks` runs: settings from the environment, pictures from the real pipeline."""

from __future__ import annotations

import gc
from types import ModuleType

from shared.manifest import Manifest
from shared.settings import Settings, load_settings
from worker.assembly import make_worker
from worker.station import Pipeline


def load_real_pipeline(manifest: Manifest, settings: Settings) -> Pipeline:
    """Load the model. Only here, in the process that renders, is torch imported: couriers run without it.

    Raises:
        WeightsInvalid: a file is refused or did not load in full.
    """
    pipeline: Pipeline = import_pipeline().load_pipeline(manifest, settings)
    return pipeline


def import_pipeline() -> ModuleType:
    """Import torch, diffusers and `worker.pipeline`, and return the latter."""
    # The libraries make objects by the hundred thousand that live for ever. To look through them for garbage costs a quarter
    # of their import, and later, each time, a pause in the middle of a picture.
    gc.disable()
    try:
        from worker import pipeline
    finally:
        gc.freeze()
        gc.enable()
    return pipeline


app = make_worker(load_settings(), load_real_pipeline)
