"""Full-size SDXL on this machine's GPU: the worker's pipeline beside plain diffusers in fp16, and both beside what is possible.

The weights are random and built on the device, so nothing is downloaded and the work is the real model's. 1024 x 1024, 20 steps
at batches of 1, 2, 4 and 8, and 30 steps at a batch of 1, all with guidance. `of limit` is the arithmetic that the pictures
need, counted on the model, at the rate of large bfloat16 matrix products measured in the same run. A batch of the worker's
pipeline is what it draws with `render.batch_size`. `worker, compiled` is `render.compile = true`.

Ends within `--budget-s`: what does not fit any more is left out and shown as a dash. `--small` runs all of it on a small shape
of the same kind, on any machine, to see that it runs; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.device import flops_of, matmul_tflops, peak_memory_gib, reset_peak, synchronize
from bench.machine import describe_machine
from bench.plain import psnr_db
from bench.results import FOLDER, Chart, Report, Table, write_report
from bench.sdxl_shape import build_random
from shared.jobs import RenderSpec
from shared.manifest import Manifest, load_manifest
from shared.settings import REPOSITORY
from worker.loading import Digests, LoadedModel, place_pipeline, quieten_libraries
from worker.pipeline import Pipeline

BATCHES = (1, 2, 4, 8)
STEPS, LONG_STEPS = 20, 30
REPEATS = 3
BUDGET_S = 440.0
COMPILE_RESERVE_S = 150.0
MIX, SEED = "50% red, 30% black, 20% pearl", 1
PLAIN, WORKER, COMPILED = "diffusers, fp16", "worker, bf16", "worker, compiled"


@dataclass(frozen=True)
class Measured:
    """One row: seconds for the whole batch (the least and the median of the repeats), and what follows from them."""

    system: str
    batch: int
    steps: int
    least_s: float
    median_s: float
    images_per_s: float
    of_limit: float
    peak_gib: float | None


@dataclass(frozen=True)
class Rig:
    """What everything is measured with: the device, its measured rate, the work of a picture, and when to stop."""

    device: torch.device
    tflops: float
    step_tflop: float
    decode_tflop: float
    deadline_s: float
    batches: Sequence[int]
    repeats: int

    @property
    def left_s(self) -> float:
        """Seconds that are left of the budget."""
        return self.deadline_s - time.monotonic()

    def picture_tflop(self, steps: int) -> float:
        """Arithmetic of one picture with guidance: two rows a step, and the decoder. The text is nothing beside it."""
        return 2 * steps * self.step_tflop + self.decode_tflop


def main() -> None:
    """Measure what the budget allows and write the report."""
    parser = argparse.ArgumentParser(prog="./granule bench gpu")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the report (default: %(default)s)")
    arguments = parser.parse_args()
    if not (arguments.small or torch.cuda.is_available()):
        parser.exit(1, "torch sees no CUDA device here; --small runs the same code on a small shape\n")
    if arguments.small:
        # So little work is shared by several threads only at a loss, on a machine with other work at a great one.
        torch.set_num_threads(1)
    deadline_s = time.monotonic() + arguments.budget_s
    machine = describe_machine()
    quieten_libraries()
    manifest = _manifest(small=arguments.small)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rig = prepare(device, manifest, deadline_s, small=arguments.small)
    rows, ready_s, picture = measure_plain(rig, manifest, small=arguments.small)
    more_rows, ready, likeness = measure_worker(
        rig, manifest, picture, small=arguments.small, compiled=not arguments.no_compile
    )
    write_report(make_report(rig, [*rows, *more_rows], {PLAIN: ready_s, **ready}, likeness, machine), arguments.output)


def prepare(device: torch.device, manifest: Manifest, deadline_s: float, *, small: bool) -> Rig:
    """Measure the device's rate and count the work of a picture, on a copy of the model that holds no numbers."""
    render = manifest.render
    step, decode = flops_of(build_random(torch.device("meta"), small=small), render.width_px, render.height_px)
    rate = matmul_tflops(device, size=256 if small else 8192)
    batches, repeats = (BATCHES[:2], 1) if small else (BATCHES, REPEATS)
    return Rig(device, rate, step / 1e12, decode / 1e12, deadline_s, batches, repeats)


def measure_plain(rig: Rig, manifest: Manifest, *, small: bool) -> tuple[list[Measured], float, NDArray[np.uint8]]:
    """Measure plain diffusers; also the seconds until its first picture was there, and that picture."""
    dtype = torch.float16 if rig.device.type == "cuda" else torch.float32
    started_s = time.monotonic()
    pipeline = build_random(rig.device, small=small).to(dtype=dtype)
    spec = manifest.plain_spec(manifest.prompt.fill(MIX), SEED)
    picture = _draw_library(pipeline, spec, 1)[0]
    ready_s = time.monotonic() - started_s
    rows = _measure_all(PLAIN, rig, spec, lambda asked, batch: _draw_library(pipeline, asked, batch))
    return rows, ready_s, picture


def measure_worker(
    rig: Rig, manifest: Manifest, plain: NDArray[np.uint8], *, small: bool, compiled: bool
) -> tuple[list[Measured], dict[str, float], float]:
    """Measure the worker's pipeline, written and compiled; also the seconds to the first picture, and its PSNR to `plain`."""
    started_s = time.monotonic()
    library, pipelines = _load_worker(rig, manifest, small=small)
    spec = manifest.plain_spec(manifest.prompt.fill(MIX), SEED)
    likeness = psnr_db(plain, pipelines[1].render(spec, _ignore).pixels)
    ready = {WORKER: time.monotonic() - started_s}

    def draw(asked: RenderSpec, batch: int) -> object:
        if batch == 1:
            return pipelines[1].render(asked, _ignore)
        return pipelines[batch].render_batch([replace(asked, seed=asked.seed + index) for index in range(batch)], _ignore)

    rows = _measure_all(WORKER, rig, spec, draw)
    # To compile takes a minute or two, and cannot be broken off.
    if compiled and rig.device.type == "cuda" and rig.left_s > COMPILE_RESERVE_S:
        started_s = time.monotonic()
        place_pipeline(library, manifest.render.model_copy(update={"compile": True}), device=rig.device, dtype=torch.bfloat16)
        pipelines[1].render(spec, _ignore)
        ready[COMPILED] = time.monotonic() - started_s
        rows += _measure_all(COMPILED, replace(rig, batches=(1,)), spec, draw)
    return rows, ready, likeness


def _load_worker(rig: Rig, manifest: Manifest, *, small: bool) -> tuple[Any, dict[int, Pipeline]]:
    """Return the models, and for each batch size the worker's pipeline that draws with them."""
    library = build_random(rig.device, small=small)
    dtype = torch.bfloat16 if rig.device.type == "cuda" else torch.float32
    place_pipeline(library, manifest.render, device=rig.device, dtype=dtype)
    model = LoadedModel(library, Digests("0" * 64, None, None), 0, rig.device, dtype)
    sized = {batch: manifest.render.model_copy(update={"batch_size": batch}) for batch in rig.batches}
    return library, {batch: Pipeline(model, manifest.model_copy(update={"render": render})) for batch, render in sized.items()}


def _measure_all(system: str, rig: Rig, spec: RenderSpec, draw: Callable[[RenderSpec, int], object]) -> list[Measured]:
    plan = [(batch, STEPS) for batch in rig.batches]
    plan.insert(1, (1, LONG_STEPS))
    rows: list[Measured] = []
    for batch, steps in plan:
        steps = spec.num_inference_steps * steps // STEPS
        # The last row's time tells whether one more fits: a warm-up and the repeats.
        per_picture_s = rows[-1].median_s / rows[-1].batch if rows else 0.0
        if (rig.repeats + 1) * batch * per_picture_s > rig.left_s:
            sys.stderr.write(f"{system}, batch {batch}, {steps} steps: left out for want of time\n")
            continue
        rows.append(_measure(system, rig, replace(spec, num_inference_steps=steps), batch, draw))
        sys.stderr.write(json.dumps(asdict(rows[-1])) + "\n")
    return rows


def _measure(system: str, rig: Rig, spec: RenderSpec, batch: int, draw: Callable[[RenderSpec, int], object]) -> Measured:
    reset_peak(rig.device)
    draw(spec, batch)
    times_s = []
    for _ in range(rig.repeats):
        synchronize(rig.device)
        started_s = time.perf_counter()
        draw(spec, batch)
        synchronize(rig.device)
        times_s.append(time.perf_counter() - started_s)
    least_s, median_s = min(times_s), float(np.median(times_s))
    of_limit = batch * rig.picture_tflop(spec.num_inference_steps) / rig.tflops / median_s
    return Measured(
        system, batch, spec.num_inference_steps, least_s, median_s, batch / median_s, of_limit, peak_memory_gib(rig.device)
    )


def _draw_library(pipeline: Any, spec: RenderSpec, batch: int) -> list[NDArray[np.uint8]]:
    pictures = pipeline(
        [spec.prompt] * batch,
        num_inference_steps=spec.num_inference_steps,
        guidance_scale=spec.guidance_scale,
        width=spec.width_px,
        height=spec.height_px,
        # One for each picture: one for all would make pictures depend on their neighbours.
        generator=[torch.Generator("cpu").manual_seed(spec.seed + index) for index in range(batch)],
    ).images
    return [np.asarray(picture) for picture in pictures]


def _manifest(*, small: bool) -> Manifest:
    """v45's, without its weights; `small` draws 64 x 64 in two steps."""
    manifest = load_manifest(REPOSITORY / "models" / "rubber-tile-lora-v45.toml")
    changes: dict[str, Any] = {"num_inference_steps": STEPS, "vae_tiling": False}
    if small:
        changes |= {"num_inference_steps": 2, "width_px": 64, "height_px": 64}
    prompt = manifest.prompt.model_copy(update={"negative_prompt": None})
    return manifest.model_copy(update={"render": manifest.render.model_copy(update=changes), "prompt": prompt})


def _ignore(step: int, steps: int) -> None:
    """Nobody is told of the steps."""


def make_report(
    rig: Rig, rows: Sequence[Measured], ready_s: dict[str, float], likeness: float, machine: dict[str, object]
) -> Report:
    """Turn the rows into a table, with the limit they are held against."""
    name = torch.cuda.get_device_name(rig.device) if rig.device.type == "cuda" else "no GPU: the small shape on a CPU"
    columns = ["", "batch", "steps", "s/image", "images/s", "of limit", "peak GiB"]
    cells = [
        [row.system, row.batch, row.steps, row.median_s / row.batch, row.images_per_s, f"{row.of_limit:.1%}", row.peak_gib]
        for row in rows
    ]
    facts = {
        "gpu": name,
        "matmul_tflops": rig.tflops,
        "step_tflop": rig.step_tflop,
        "decode_tflop": rig.decode_tflop,
        "ready_s": ready_s,
        "psnr_db": likeness,
        "rows": [asdict(row) for row in rows],
    }
    ready = [[system, seconds] for system, seconds in ready_s.items()]
    tables = [
        Table(f"{name}; matrix products at {rig.tflops:.4g} TFLOP/s, median of {rig.repeats}", columns, cells),
        Table("Seconds to the first picture, weights built on the device", ["", "s"], ready),
    ]
    singles = [row for row in rows if row.batch == 1 and row.steps == rows[0].steps]
    chart = Chart("Seconds an image, batch 1", [row.system for row in singles], {"s": [row.median_s for row in singles]})
    notes = [f"The worker's picture beside plain diffusers': PSNR {likeness:.1f} dB, with random weights."]
    return Report("gpu", machine, facts, tables, chart, notes)


if __name__ == "__main__":
    main()
