"""What torch sees on this machine, as one JSON object: `python -m worker.hardware`. `granule doctor` reads it."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

LIBRARIES = ("diffusers", "transformers", "peft", "accelerate", "safetensors")
PROBE_SIZE = 64


def describe_hardware() -> dict[str, Any]:
    """Return torch's version, the CUDA release it was built for, and every device it can use, tried with a small product."""
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "devices": [_device(index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else [],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    found: dict[str, Any] = {"index": index, "name": properties.name, "memory_bytes": properties.total_memory, "error": None}
    try:
        free_bytes, _ = torch.cuda.mem_get_info(index)
        found["free_bytes"] = free_bytes
        probe = torch.ones(PROBE_SIZE, PROBE_SIZE, device=f"cuda:{index}", dtype=torch.bfloat16)
        if float((probe @ probe).sum()) != float(PROBE_SIZE**3):
            found["error"] = "it calculates wrongly"
    except RuntimeError as error:
        found["error"] = str(error).partition("\n")[0]
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe_hardware()) + "\n")
