"""An API that dies between recording a job and sending its message, as the worst-timed crash would."""

from __future__ import annotations

import os
import signal

from flask import Flask

from api.server import create_app
from shared.jobs import Lane
from shared.settings import load_settings


def create_doomed_app() -> Flask:
    """The real API, but for the one moment: `gunicorn 'tests.standin.api:create_doomed_app()'`."""
    return create_app(load_settings(), enqueue=_die)


def _die(job_id: str, *, model: str, lane: Lane) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
