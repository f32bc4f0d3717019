"""A Celery app whose pipeline draws no tile but takes its time step by step, and misbehaves when the prompt says so.

Everything around it is the real thing: guardian, Celery, Redis, S3. `STANDIN_STEP_S` is how long one step takes, unless the
prompt says it ("0.5 s a step"). `STANDIN_VISIBILITY_TIMEOUT_S` is Celery's, to see what redelivery by age would do. With
`STANDIN_DEAF_TO_CLAIMS` the worker is killed when it has claimed a job and does not know it yet.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared import job_store
from shared.errors import OutOfMemory
from shared.job_store import JobStore
from shared.jobs import Job, RenderSpec
from shared.manifest import Manifest
from shared.settings import Settings, load_settings
from worker.assembly import make_worker
from worker.pulse import Memory

STEPS = 5
STEP_S = re.compile(r"([0-9.]+) s a step")


@dataclass(frozen=True, eq=False)
class Picture:
    pixels: NDArray[np.uint8]
    duration_s: float


class StandInPipeline:
    def __init__(self) -> None:
        self.step_s = float(os.environ.get("STANDIN_STEP_S", "0.02"))
        self.prompt = ""
        self.rows = 1

    @property
    def provenance(self) -> dict[str, Any]:
        return {"device": "stand-in", "batch_size": self.rows}

    @property
    def memory(self) -> Memory | None:
        return None

    def preview(self, row: int) -> NDArray[np.uint8]:
        if "no preview" in self.prompt:
            raise RuntimeError("the stand-in shows nothing before it is done")
        return np.full((128, 128, 3), (200, 40, 40), np.uint8)

    def render(self, spec: RenderSpec, on_step: Callable[[int, int], None]) -> Picture:
        self.rows = 1
        return self._draw(spec, spec.prompt, on_step)

    def render_batch(self, specs: Sequence[RenderSpec], on_step: Callable[[int, int], None]) -> list[Picture]:
        """Take the time of one picture, and misbehave as any of the prompts says."""
        self.rows = len(specs)
        first = self._draw(specs[0], ", ".join(spec.prompt for spec in specs), on_step)
        return [replace(first, pixels=_pixels(spec)) for spec in specs]

    def _draw(self, spec: RenderSpec, prompt: str, on_step: Callable[[int, int], None]) -> Picture:
        started_s = time.monotonic()
        self.prompt = prompt
        asked = STEP_S.search(prompt)
        step_s = float(asked[1]) if asked else self.step_s
        if "out of memory" in prompt:
            raise OutOfMemory("the stand-in has no memory")
        for step in range(1, STEPS + 1):
            if "poison" in prompt:
                os.kill(os.getpid(), signal.SIGKILL)
            if "broken device" in prompt:
                raise RuntimeError("the stand-in's device broke")
            if "hold the interpreter" in prompt:
                # A PyDLL call keeps the interpreter's lock, as a bad extension would.
                ctypes.PyDLL(None).usleep(int(1e6 * step_s))
            elif "hang" in prompt:
                time.sleep(3600)
            else:
                time.sleep(step_s)
            on_step(step, STEPS)
        return Picture(_pixels(spec), time.monotonic() - started_s)


def _pixels(spec: RenderSpec) -> NDArray[np.uint8]:
    return np.random.default_rng(spec.seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def load_stand_in(manifest: Manifest, settings: Settings) -> StandInPipeline:
    return StandInPipeline()


class DeafStore(JobStore):
    def claim(self, job_id: str, *, worker: str, delivery_token: str) -> Job | None:
        super().claim(job_id, worker=worker, delivery_token=delivery_token)
        os.kill(os.getpid(), signal.SIGKILL)
        return None


if "STANDIN_DEAF_TO_CLAIMS" in os.environ:
    job_store.JobStore = DeafStore  # type: ignore[misc]
app = make_worker(load_settings(), load_stand_in)
if "STANDIN_VISIBILITY_TIMEOUT_S" in os.environ:
    visibility_timeout = int(os.environ["STANDIN_VISIBILITY_TIMEOUT_S"])
    app.conf.broker_transport_options |= {"visibility_timeout": visibility_timeout, "unacked_restore_interval": 1}
