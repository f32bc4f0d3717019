"""What drawing jobs together gains on this machine: the worker's pipeline, one by one and in batches, the same pictures.

The batch sizes take turns, so that the machine's slow moments hit all. Every turn draws as many pictures in each way as the
largest batch has; `ratio` is the time of a picture over that of one drawn alone in the same turn. On a machine with other work
processor time is the one that can be compared. A level is one of the 256 of one colour of one pixel.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import torch

from bench.machine import describe_machine
from bench.results import Report, Table, write_report
from shared.jobs import RenderSpec
from shared.manifest import load_catalog
from shared.settings import load_settings
from worker.loading import load_model, quieten_libraries
from worker.pipeline import Pipeline, warm_up

Figures = dict[str, list[float]]


def main() -> None:
    """Draw, compare and write the report."""
    parser = argparse.ArgumentParser(prog="./granule bench batches")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--size-px", type=int, help="side of the pictures (default: the model's own)")
    arguments = parser.parse_args()
    machine = describe_machine()
    settings = load_settings()
    manifest = load_catalog(settings.models_dir).by_slug(settings.model)
    quieten_libraries()
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    model = load_model(manifest, settings)
    pipelines = {}
    for size in (1, *arguments.sizes):
        sized = manifest.model_copy(update={"render": manifest.render.model_copy(update={"batch_size": size})})
        pipelines[size] = Pipeline(model, sized)
        warm_up(pipelines[size], sized)
    spec = manifest.plain_spec(manifest.prompt.fill("60% red, 40% black"), 0)
    if arguments.size_px:
        spec = replace(spec, width_px=arguments.size_px, height_px=arguments.size_px)
    found: dict[int, Figures] = {size: {"seconds": [], "processor_s": [], "differing": []} for size in pipelines}
    for turn in range(arguments.turns):
        draw_turn([replace(spec, seed=turn * 100 + n) for n in range(max(pipelines))], pipelines, found)
    rows = [[size, *_row(figures, found[1])] for size, figures in found.items()]
    threads = f"{torch.get_num_threads()} threads"
    title = f"{spec.num_inference_steps} steps, {spec.width_px} x {spec.height_px}, {arguments.turns} turns, {threads}"
    columns = ["batch", "s/image p50", "ratio", "processor s/image p50", "ratio", "levels unlike those drawn alone"]
    report = Report("batches", machine, {"model": manifest.slug, "found": found}, [Table(title, columns, rows)])
    write_report(report)


def draw_turn(specs: list[RenderSpec], pipelines: dict[int, Pipeline], found: dict[int, Figures]) -> None:
    """Draw these pictures in every batch size, alone first, and add what was found."""
    alone: list[np.ndarray] = []
    for size, pipeline in pipelines.items():
        pictures = []
        started_s, worked_s = time.perf_counter(), time.process_time()
        for first in range(0, len(specs), size):
            batch = specs[first : first + size]
            drawn = [pipeline.render(batch[0], _ignore)] if size == 1 else pipeline.render_batch(batch, _ignore)
            pictures += [one.pixels for one in drawn]
        found[size]["processor_s"].append((time.process_time() - worked_s) / len(specs))
        found[size]["seconds"].append((time.perf_counter() - started_s) / len(specs))
        alone = alone or pictures
        if size > 1:
            found[size]["differing"].append(float(np.mean([a != b for a, b in zip(alone, pictures, strict=True)])))


def _row(figures: Figures, alone: Figures) -> list[float | str | None]:
    cells: list[float | str | None] = []
    for what in ("seconds", "processor_s"):
        ratios = [one / other for one, other in zip(figures[what], alone[what], strict=True)]
        cells += [statistics.median(figures[what]), statistics.median(ratios)]
    return [*cells, f"{statistics.mean(figures['differing']):.4%}" if figures["differing"] else None]


def _ignore(step: int, steps: int) -> None:
    """Nobody is told of the steps."""


if __name__ == "__main__":
    main()
