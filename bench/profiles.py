"""What a model's quicker profiles cost and save: time, likeness and colour error against `exact`, in one run.

Every mix is drawn in every profile from the same seed. `time` and `processor`
time are a profile's over exact's, the median of the pictures;
`PSNR` says how alike the pictures are; `colour error` is the mean total variation between ordered and measured shares.
`--try NAME:STEPS:GUIDANCE_END` measures a profile that the manifest does not have.
"""

from __future__ import annotations

import argparse
import statistics
import time

from bench.machine import describe_machine
from bench.plain import psnr_db
from bench.results import Report, Table, write_report
from shared.manifest import EXACT, Manifest, Profile, load_catalog
from shared.settings import load_settings
from worker.composition import measure_composition
from worker.pipeline import Pipeline, load_pipeline

MIXES = ("50% red, 50% black", "70% blue, 30% gray", "100% emerald", "40% beige, 40% brown, 20% black", "80% black, 20% yellow")


def main() -> None:
    """Draw every mix in every profile and write the report."""
    parser = argparse.ArgumentParser(prog="./granule bench profiles")
    parser.add_argument("--mixes", type=int, default=len(MIXES), choices=range(1, len(MIXES) + 1), metavar="N")
    parser.add_argument("--try", dest="tried", nargs="+", type=_tried, default=[], metavar="NAME:STEPS:GUIDANCE_END")
    arguments = parser.parse_args()
    machine = describe_machine()
    settings = load_settings()
    manifest = load_catalog(settings.models_dir).by_slug(settings.model)
    manifest = manifest.model_copy(update={"profiles": manifest.profiles | dict(arguments.tried)})
    profiles = {EXACT: manifest.profile(EXACT), **manifest.profiles}
    pipeline = load_pipeline(manifest, settings)
    found: dict[str, dict[str, list[float]]] = {
        name: {"time": [], "processor": [], "psnr_db": [], "color_error": []} for name in profiles
    }
    for seed, mix in enumerate(MIXES[: arguments.mixes]):
        compare(mix, seed, profiles, pipeline, manifest, found)
    rows = [
        [name, manifest.in_profile(manifest.plain_spec("", 0), name).num_inference_steps, profile.guidance_end]
        + [statistics.mean(figures["psnr_db"]) if figures["psnr_db"] else None, statistics.mean(figures["color_error"])]
        + [statistics.median(figures["time"]), statistics.median(figures["processor"])]
        for (name, profile), figures in zip(profiles.items(), found.values(), strict=True)
    ]
    title = f"{manifest.slug}, {arguments.mixes} mixes, drawn from the words alone"
    columns = ["profile", "steps", "guidance_end", "PSNR to exact, dB", "colour error", "time / exact", "processor / exact"]
    write_report(Report("profiles", machine, {"model": manifest.slug, "found": found}, [Table(title, columns, rows)]))


def compare(
    mix: str,
    seed: int,
    profiles: dict[str, Profile],
    pipeline: Pipeline,
    manifest: Manifest,
    found: dict[str, dict[str, list[float]]],
) -> None:
    """Draw one mix in every profile and add what was found. `exact` must be the first."""
    shares = [(share.rpartition("% ")[2], float(share.partition("%")[0])) for share in mix.split(", ")]
    ordered = [(color, percent) for name, percent in shares if (color := manifest.colors.find(name)) is not None]
    exact = None
    for name in profiles:
        started_s, worked_s = time.perf_counter(), time.process_time()
        pixels = pipeline.render(
            manifest.in_profile(manifest.plain_spec(manifest.prompt.fill(mix), seed), name), lambda step, steps: None
        ).pixels
        duration_s, processor_s = time.perf_counter() - started_s, time.process_time() - worked_s
        exact = exact or (pixels, duration_s, processor_s)
        found[name]["time"].append(duration_s / exact[1])
        found[name]["processor"].append(processor_s / exact[2])
        found[name]["color_error"].append(measure_composition(pixels, ordered, rivals=manifest.colors.colors).color_error)
        if pixels is not exact[0]:
            found[name]["psnr_db"].append(psnr_db(exact[0], pixels))


def _tried(text: str) -> tuple[str, Profile]:
    name, steps, guidance_end = text.split(":")
    return name, Profile(num_inference_steps=int(steps), guidance_end=float(guidance_end))


if __name__ == "__main__":
    main()
