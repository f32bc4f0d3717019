"""The Celery app that `celery --app worker.tasks` runs: settings from the environment, pictures from the real pipeline."""

from __future__ import annotations

from shared.manifest import Manifest
from shared.settings import Settings, load_settings
from worker.assembly import make_worker
from worker.station import Pipeline


def load_real_pipeline(manifest: Manifest, settings: Settings) -> Pipeline:
    """Load the model. Only here, in the process that renders, is torch imported: couriers run without it.

    Raises:
        WeightsInvalid: a file is refused or did not load in full.
    """
    from worker.pipeline import load_pipeline

    return load_pipeline(manifest, settings)


app = make_worker(load_settings(), load_real_pipeline)
