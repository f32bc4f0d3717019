"""What every stage of training shares: a log of JSON lines, checkpoints that survive a kill, and the learning rate's course."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(slots=True)
class Progress:
    """Writes `log.jsonl` and one checkpoint file a stage into `folder`, and says where a stage stopped."""

    folder: Path
    started_s: float = field(default_factory=time.monotonic)

    def log(self, stage: str, step: int, **figures: float) -> None:
        """Append one line: stage, step, seconds since this process began, figures."""
        line = {"stage": stage, "step": step, "elapsed_s": round(time.monotonic() - self.started_s, 1)}
        line |= {name: round(value, 5) for name, value in figures.items()}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def save(self, stage: str, state: dict[str, Any]) -> None:
        """Replace the stage's checkpoint in one move, so that a kill leaves the old one or the new one."""
        target = self.folder / f"{stage}.pt"
        draft = target.with_suffix(".draft")
        torch.save(state, draft)
        os.replace(draft, target)

    def load(self, stage: str) -> dict[str, Any] | None:
        """Return the stage's last checkpoint, or None if it never saved one. Only tensors and plain values are read."""
        target = self.folder / f"{stage}.pt"
        if not target.exists():
            return None
        state: dict[str, Any] = torch.load(target, weights_only=True)
        return state


def learning_rate(step: int, steps: int, *, peak: float, warm_up: int = 200, floor: float = 0.05) -> float:
    """Return the rate at a step: a linear rise over `warm_up`, then half a cosine down to `floor` times the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    part = min(1.0, (step - warm_up) / max(1, steps - warm_up))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * part)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group its `scale` times the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
