"""What a worker's process puts together before it takes a message."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from shared.queue import make_celery
from shared.settings import REPOSITORY, Settings
from shared.tracing import Tracer
from worker.assembly import Assembly


def assemble(**settings: Any) -> Assembly:
    """One whose pipeline draws nothing; neither Redis nor storage is there."""
    chosen = Settings(**settings)
    return Assembly(chosen, make_celery(chosen), lambda manifest, settings: cast("Any", None))


@pytest.mark.parametrize(("spool_places", "max_attempts", "size"), [(2, 3, 4), (1, 3, 4), (0, 3, 1), (2, 1, 1)])
def test_only_a_worker_that_publishes_beside_its_drawing_draws_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spool_places: int, max_attempts: int, size: int
) -> None:
    shutil.copy(REPOSITORY / "models" / "palette.toml", tmp_path)
    manifest = (REPOSITORY / "models" / "rubber-tile-mini.toml").read_text(encoding="utf-8")
    (tmp_path / "mini.toml").write_text(manifest.replace("[render]\n", "[render]\nbatch_size = 4\n"), encoding="utf-8")

    class Pulse:
        def __init__(self, fd: int) -> None: ...

        def start_pinging(self) -> None: ...

    monkeypatch.setattr("worker.assembly.Pulse", Pulse)
    monkeypatch.setattr("worker.assembly.SWITCH_INTERVAL_S", sys.getswitchinterval())
    limits = {"spool_places": spool_places, "max_attempts": max_attempts}
    station = assemble(models_dir=tmp_path, pulse_fd=1, worker_name="w", **limits).station
    assert station.batch_size.now() == size


def test_a_couriers_threads_share_the_tracer_that_was_made_before_they_began(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tracer] = []
    used: list[Tracer] = []

    def connect(settings: Settings, service: str) -> Tracer:
        made.append(Tracer())
        return made[0]

    monkeypatch.setattr("worker.assembly.connect_tracer", connect)
    monkeypatch.setattr("worker.assembly.deliver", lambda delivery_id, **parts: used.append(parts["tracer"]))
    courier = assemble(metrics_port=0)
    monkeypatch.setattr(courier, "_start_sweep", lambda: None)
    courier.get_ready()
    assert len(made) == 1
    courier.deliver("a")
    courier.deliver("b")
    assert len(made) == 1 and used == made * 2
