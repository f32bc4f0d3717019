"""How gunicorn serves the API: `gunicorn --config python:api.serving 'api.server:create_app()'`.

Options on the command line win, and so does the variable GUNICORN_CMD_ARGS.
"""

from __future__ import annotations

import os
import shutil
import tempfile

from gunicorn.arbiter import Arbiter

from shared.settings import load_settings

METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"

worker_class = "api.gateway.ProblemWorker"
workers = 2
# Streams and creates that wait take a thread each for as long as they are open.
threads = 32
graceful_timeout = 30
# Above the API's own bound on headers, so that it is the API that refuses them, in the form of all its errors.
limit_request_field_size = 32_768
control_socket_disable = True
if load_settings().log_format == "json":
    # Gunicorn's own lines in the form of all others.
    logconfig_dict = {"formatters": {"generic": {"()": "shared.logs.JsonFormatter"}}}


def on_starting(server: Arbiter) -> None:
    """Make a folder in which the processes of this start put their counts together, unless the environment names one."""
    if METRICS_DIR not in os.environ:
        os.environ[METRICS_DIR] = tempfile.mkdtemp(prefix="granule-metrics-")
        server.log.debug("metrics are put together in %s", os.environ[METRICS_DIR])


def on_exit(server: Arbiter) -> None:
    """Remove that folder: the next start counts from 0, as Prometheus expects of a process that was restarted."""
    shutil.rmtree(os.environ[METRICS_DIR], ignore_errors=True)
