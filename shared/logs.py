"""Log lines: text for a person, or one JSON object a line for a collector."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

from shared.settings import Settings
from shared.tracing import current

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The name of the HTTP request that the API serves right now in this thread."""

TEXT_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger and message, the ids of the job, the request and the span that the line speaks of, and the
    traceback.

    The job's id is where `extra={"job_id": ...}` gave one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in (("job_id", getattr(record, "job_id", None)), ("request_id", REQUEST_ID.get())):
            if value is not None:
                line[name] = value
        line |= current().ids
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(settings: Settings) -> None:
    """Send every log line of this process to standard error in the configured form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else logging.Formatter(TEXT_FORMAT))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
