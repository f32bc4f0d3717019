"""Seconds an image on this machine: the worker's pipeline beside plain diffusers, same checkpoint, steps, seeds and prompts.

Plain diffusers is measured twice: in float32, which is what it loads without being told, and in the model's own bfloat16. The
three take turns, so that the machine's slow moments hit all; the ratios are of the pictures of one turn. Every turn has
another prompt, so nobody's memory of prompts helps. Processor time stands beside the time on the clock: on a machine with other
work it is the one that can be compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from bench.machine import describe_machine
from bench.plain import draw_plain, load_plain, psnr_db
from bench.results import Chart, Report, Table, percentile, write_report
from shared.jobs import RenderSpec
from shared.manifest import load_catalog
from shared.settings import load_settings
from worker.loading import quieten_libraries
from worker.pipeline import load_pipeline

WORKER = "Granule's worker"
Draw = Callable[[RenderSpec], NDArray[np.uint8]]


def main() -> None:
    """Draw, compare and write the report."""
    parser = argparse.ArgumentParser(prog="./granule bench mini")
    parser.add_argument("--turns", type=int, default=8)
    arguments = parser.parse_args()
    machine = describe_machine()
    settings = load_settings()
    manifest = load_catalog(settings.models_dir).by_slug(settings.model)
    quieten_libraries()
    pipeline = load_pipeline(manifest, settings)
    full = load_plain(manifest, settings, dtype=torch.float32, device="cpu")
    half = load_plain(manifest, settings, dtype=torch.bfloat16, device="cpu")
    systems: dict[str, Draw] = {
        WORKER: lambda spec: pipeline.render(spec, lambda step, steps: None).pixels,
        "diffusers, bfloat16": lambda spec: draw_plain(half, spec),
        "diffusers, float32": lambda spec: draw_plain(full, spec),
    }
    colors = [color.name for color in manifest.colors.colors]
    specs = [
        manifest.plain_spec(
            manifest.prompt.fill(f"60% {colors[turn % len(colors)]}, 40% {colors[(turn + 7) % len(colors)]}"), turn
        )
        for turn in range(arguments.turns + 1)
    ]
    for draw in systems.values():
        draw(specs[-1])
    write_report(make_report(compare(systems, specs[:-1]), machine, arguments.turns, specs[0].num_inference_steps))


def compare(systems: dict[str, Draw], specs: list[RenderSpec]) -> dict[str, dict[str, list[float]]]:
    """Draw every picture with every system. Return, a picture each, `seconds`, `processor_s`, and `psnr_db` to the worker's."""
    found: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "processor_s": [], "psnr_db": []} for name in systems}
    for spec in specs:
        pictures = {}
        for name, draw in systems.items():
            started_s, worked_s = time.perf_counter(), time.process_time()
            pictures[name] = draw(spec)
            found[name]["processor_s"].append(time.process_time() - worked_s)
            found[name]["seconds"].append(time.perf_counter() - started_s)
        for name, picture in pictures.items():
            if name != WORKER:
                found[name]["psnr_db"].append(psnr_db(pictures[WORKER], picture))
    return found


def make_report(found: dict[str, dict[str, list[float]]], machine: dict[str, object], turns: int, steps: int) -> Report:
    """Turn what was found into a table; `ratio` is the worker's time over the other's, the median over the turns."""
    rows = []
    for name, figures in found.items():
        likeness = statistics.median(figures["psnr_db"]) if figures["psnr_db"] else None
        cells = [
            (percentile(figures[what], 50), min(figures[what]), _ratio(found[WORKER][what], figures[what]))
            for what in ("seconds", "processor_s")
        ]
        rows.append([name, *cells[0], *cells[1], likeness])
    threads = f"{torch.get_num_threads()} threads"
    title = f"{steps} steps, 1024 x 1024, {turns} turns, {threads}; ratio is the worker's time over this row's"
    columns = ["", "s/image p50", "least", "ratio", "processor s/image p50", "least", "ratio", "PSNR to the worker's, dB"]
    table = Table(title, columns, rows)
    bars = {"processor s/image": [percentile(figures["processor_s"], 50) for figures in found.values()]}
    chart = Chart("Processor seconds an image, p50", list(found), bars)
    return Report("mini", machine, {"found": found}, [table], chart)


def _ratio(own: list[float], others: list[float]) -> float:
    return statistics.median(mine / other for mine, other in zip(own, others, strict=True))


if __name__ == "__main__":
    main()
