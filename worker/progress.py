"""How far a drawing is, told to guardian and record without the drawing ever waiting for Redis."""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from shared.errors import StoreUnavailable
from shared.job_store import Beat
from shared.jobs import Job
from shared.metrics import DENOISE_STEPS
from shared.tracing import OFF_SPAN, Span
from worker.images import encode_small
from worker.pulse import Step
from worker.station import Station

log = logging.getLogger(__name__)

METER_COLUMNS = 60
PREVIEW_EVERY_STEPS = 3
"""Previews of the 1st, 4th, 7th, ... step: the first already shows where it goes, and each waits for the device."""
PREVIEW_PX, PREVIEW_QUALITY = 128, 70
STORE_AWAY_S = 5.0


class CancelRequested(Exception):
    """The owner of the job called it off."""


class JobLost(Exception):
    """The job was given to another worker."""


class Progress:
    """Called after each denoising step; raises CancelRequested or JobLost when the job is no longer to be drawn.

    Guardian and record are told the step; the record by a thread of its own, which sends the newest step with all log lines
    since the last. So what the record answers is heard one step later at the latest. The log line has the form of tqdm's,
    because the official clients read their progress from it. `close` must be called in the end. Steps are noted on `span` too.
    """

    span: Span = OFF_SPAN

    def __init__(self, job: Job, station: Station, row: int = 0) -> None:
        """`row` is the job's place among those that are drawn together."""
        self._job = job
        self._station = station
        self._row = row
        self._started_s = time.monotonic()
        self._changed = threading.Condition()
        self._closed = False
        self._step = 0
        self._unsent = f"Using seed: {job.spec.render.seed}\n"
        self._sent_bytes = 0
        self._beat = Beat.HELD
        self._wants_preview = job.spec.wants_preview
        self._preview: NDArray[np.uint8] | None = None
        self._thread = threading.Thread(target=self._report_forever, name="progress", daemon=True)
        self._thread.start()

    def __call__(self, step: int, steps: int) -> None:
        """Note that `step` of `steps` is done. Raises CancelRequested, JobLost."""
        self._station.pulse.send(Step(self._job.id, self._job.fence))
        DENOISE_STEPS.labels(self._job.spec.model).inc()
        self.span.event("step", {"granule.step": step, "granule.steps": steps})
        elapsed_s = time.monotonic() - self._started_s
        preview = self._look() if step % PREVIEW_EVERY_STEPS == 1 else None
        with self._changed:
            self._step = step
            self._preview = self._preview if preview is None else preview
            self._unsent += tqdm.format_meter(step, steps, elapsed_s, ncols=METER_COLUMNS, ascii=True) + "\n"
            self._changed.notify()
        self._obey(self._beat)

    def note(self, line: str) -> None:
        """Add a line to the job's logs; it goes on record with the next report."""
        with self._changed:
            self._unsent += f"{line}\n"

    @property
    def is_behind(self) -> bool:
        """Whether the record has not been told everything."""
        return bool(self._unsent)

    def close(self) -> None:
        """End the thread. What is not yet on record is left to `report`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def report(self) -> None:
        """Tell the record all that it was not told yet, and renew the lease.

        Raises:
            CancelRequested, JobLost: the job is not to be published.
            StoreUnavailable: nothing was heard.
        """
        self._obey(self._report())

    def _obey(self, beat: Beat) -> None:
        if beat is Beat.CANCEL:
            raise CancelRequested
        if beat is Beat.LOST:
            raise JobLost

    def _look(self) -> NDArray[np.uint8] | None:
        """Return a rough picture of what is being drawn, if the order wants one and it can be had."""
        if not self._wants_preview:
            return None
        try:
            return self._station.pipeline.preview(self._row)
        except Exception:
            # Whatever it is, the picture itself is not to suffer from it.
            self._wants_preview = False
            log.exception("job %s has no previews", self._job.id, extra={"job_id": self._job.id})
            return None

    def _show_preview(self) -> None:
        """Put the newest preview where the API finds it. Before the step is told: who hears of that may come at once."""
        with self._changed:
            preview, self._preview = self._preview, None
        if preview is None:
            return
        try:
            # Nor may it end the thread that tells the record.
            small = encode_small(preview, side_px=PREVIEW_PX, quality=PREVIEW_QUALITY)
            self._station.previews.put(self._job.id, small.data)
        except StoreUnavailable as error:
            log.warning("a preview of job %s is lost: %s", self._job.id, error, extra={"job_id": self._job.id})
        except Exception:
            log.exception("a preview of job %s is lost", self._job.id, extra={"job_id": self._job.id})

    def _report(self) -> Beat:
        with self._changed:
            step, unsent = self._step, self._unsent
        beat = self._station.store.renew(self._job.id, self._job.fence, step=step, log=unsent, log_from=self._sent_bytes)
        self._sent_bytes += len(unsent.encode())
        with self._changed:
            self._unsent = self._unsent[len(unsent) :]
        return beat

    def _report_forever(self) -> None:
        pause_s = 0.0
        while self._has_news(pause_s):
            # While Redis is away a preview would have the step wait for one time-out more.
            if not pause_s:
                self._show_preview()
            try:
                self._beat = self._report()
                pause_s = 0.0
            except StoreUnavailable:
                # The picture is worth finishing: the outcome is written when Redis is back, if the job is still ours then.
                pause_s = STORE_AWAY_S

    def _has_news(self, pause_s: float) -> bool:
        """Wait for a step to report, after a pause. False: closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, pause_s)
            self._changed.wait_for(lambda: self._closed or (self._step and self._unsent))
            return not self._closed
