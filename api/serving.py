"""How gunicorn serves the API: `gunicorn --config python:api.serving 'api.server:create_app()'`.

This is executed as gunicorn's configuration and by nothing else. Options on the command line win over it.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile

from gunicorn.arbiter import Arbiter

from shared.settings import load_settings

# What is imported stays for ever; to look through it for garbage meanwhile costs a fifth of the start.
gc.disable()

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

# Where the processes of this start put their counts together. Named before anything can import prometheus-client, which
# looks for it once.
metrics_dir = None if METRICS_DIR in os.environ else tempfile.mkdtemp(prefix="granule-metrics-")
if metrics_dir is not None:
    os.environ[METRICS_DIR] = metrics_dir


def when_ready(server: Arbiter) -> None:
    """Collect garbage again, now that all modules are there; what there is until here is passed over, also by the workers."""
    gc.freeze()
    gc.enable()


def on_exit(server: Arbiter) -> None:
    """Remove the folder of counts: the next start counts from 0, as Prometheus expects of what was restarted."""
    if metrics_dir is not None:
        shutil.rmtree(metrics_dir, ignore_errors=True)
