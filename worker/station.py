"""What a render worker works with, and what it asks of its pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.job_store import JobStore
from shared.jobs import RenderSpec
from shared.manifest import Manifest
from shared.previews import Previews
from shared.storage import Storage
from shared.tracing import OFF, Tracer
from worker.batch_size import BatchSize
from worker.duty import DutyMeter
from worker.pulse import Memory, Pulse
from worker.spool import Spool


class Rendered(Protocol):
    """A finished picture: `pixels` is uint8 of shape height x width x 3 in sRGB, `duration_s` what the pipeline took."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The picture. The pipeline does not write to it again: it is published while the next one is drawn."""

    @property
    def duration_s(self) -> float:
        """Seconds the pipeline took."""


class Pipeline(Protocol):
    """What renders. `on_step(step, steps)` is called after every denoising step and may raise to stop; that passes through."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Everything that can change a pixel, as it was for the last picture."""

    @property
    def memory(self) -> Memory | None:
        """How much memory its device has and had to give, as of the last picture; None where that is not counted."""

    def preview(self, row: int) -> NDArray[np.uint8]:
        """Return a rough picture of what is being drawn (uint8, height x width x 3, sRGB), to be asked for in `on_step`.

        `row` tells which of the pictures that are drawn together, from 0.
        """

    def render(self, spec: RenderSpec, on_step: Callable[[int, int], None]) -> Rendered:
        """Draw one picture. Raises RenderFailed."""

    def render_batch(self, specs: Sequence[RenderSpec], on_step: Callable[[int, int], None]) -> Sequence[Rendered]:
        """Draw the pictures of renders that `share_forward`, in their order. No picture depends on the others.

        Called where the station's `batch_size` allows more than 1, with so many or fewer. Raises as `render`.
        """
        return [self.render(spec, on_step) for spec in specs]


@dataclass(frozen=True, slots=True)
class Station:
    """Everything a render worker works with, built once when it starts.

    `name` is unique to one start of its guardian; `publish_limit_s` is how long an upload is tried; `is_stopping` tells
    whether the process was told to end; `batch_size` says how many jobs may be drawn together.
    """

    name: str
    manifest: Manifest
    store: JobStore
    previews: Previews
    storage: Storage
    pipeline: Pipeline
    pulse: Pulse
    spool: Spool
    duty: DutyMeter
    publish_limit_s: float
    is_stopping: Callable[[], bool]
    batch_size: BatchSize = field(default_factory=BatchSize)
    tracer: Tracer = OFF

    def tell_memory(self) -> None:
        """Tell the guardian how the device's memory stands, where that is counted."""
        if (memory := self.pipeline.memory) is not None:
            self.pulse.send(memory)
