"""The GPU benchmark: its shape is SDXL's, and all of it runs where there is no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.device import flops_of
from bench.sdxl_shape import build_random
from shared.settings import REPOSITORY


def test_the_shape_has_the_parameters_and_the_arithmetic_of_the_real_model() -> None:
    pipeline = build_random(torch.device("meta"))
    assert sum(tensor.numel() for tensor in pipeline.unet.parameters()) == 2_567_463_684
    assert sum(tensor.numel() for tensor in pipeline.vae.parameters()) == 83_653_863
    step, decode = flops_of(pipeline, 1024, 1024)
    assert (step, decode) == (pytest.approx(6.76e12, rel=0.01), pytest.approx(10.47e12, rel=0.01))


def test_the_whole_benchmark_runs_on_a_small_shape(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu", "--small", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    systems = {"diffusers, fp16", "worker, bf16"}
    assert {(row["system"], row["batch"], row["steps"]) for row in found["rows"]} >= {
        (system, batch, steps) for system in systems for batch, steps in ((1, 2), (1, 3), (2, 2))
    }
    assert all(row["images_per_s"] > 0 and row["of_limit"] > 0 for row in found["rows"])
    # The same weights, and float32 on a CPU: the worker draws what the library draws.
    assert found["psnr_db"] > 40
    assert "of limit" in (tmp_path / "gpu.md").read_text() and (tmp_path / "gpu.svg").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_and_measures_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, list(tmp_path.iterdir())) == (1, []) and "--small" in done.stderr
