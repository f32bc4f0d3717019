"""The doctor on the machine itself: Python, packages, torch and GPUs, memory, disk, limits."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from cli.child import ChildFailed, ask
from cli.findings import Finding, note, ok, warning, wrong
from cli.gpus import list_gpus
from shared.errors import SettingsInvalid
from shared.settings import REPOSITORY, Settings

PYTHON_FLOOR, PYTHON_LAST = (3, 11), (3, 14)
TORCH_TIMEOUT_S = 180.0
GB = 1_000_000_000
DISK_WRONG_BYTES, DISK_WARNING_BYTES = GB // 2, 5 * GB
MEMORY_WARNING_BYTES = 2 * GB
FILES_MIN = 1024
CONSTRAINT = re.compile(r"([a-z0-9-]+)==([^\s;]+)")
DRAWING = frozenset({"torch", "diffusers", "transformers", "peft", "accelerate", "safetensors"})
"""Packages whose version can change a pixel or refuse a file."""


def check_python() -> Iterator[Finding]:
    """Look at the interpreter and at the packages beside it."""
    found = f"Python {platform.python_version()} at {sys.executable}"
    if PYTHON_FLOOR <= sys.version_info[:2] <= PYTHON_LAST:
        yield ok("python", found)
    else:
        yield wrong(
            "python", f"{found}; Granule runs on 3.11 to 3.14", "remove .venv and run PYTHON=/path/to/python3.12 ./granule test"
        )
    constraints = REPOSITORY / "constraints.txt"
    if not constraints.exists():
        return
    other = []
    for name, pin in CONSTRAINT.findall(constraints.read_text(encoding="utf-8")):
        try:
            present = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
        if present != pin and name in DRAWING:
            other.append(f"{name} {present} instead of {pin}")
    if other:
        yield note("packages", f"not the tested versions: {', '.join(other)}", "pip install -c constraints.txt ...")
    else:
        yield ok("packages", "the installed ones are those of constraints.txt where a pixel depends on them")


def check_torch(settings: Settings) -> Iterator[Finding]:
    """Have torch loaded by another process, and compare what it sees with what nvidia-smi does and the settings want."""
    try:
        [seen] = ask("worker.hardware", timeout_s=TORCH_TIMEOUT_S)
    except ChildFailed as error:
        if "No module named" in error.detail:
            yield note(
                "torch",
                "not installed: this machine can serve the API and couriers, and draw nothing",
                "./granule up installs it",
            )
        else:
            yield wrong("torch", f"it cannot be loaded: {error.detail}", "rm -r .venv && ./granule test installs it again")
        return
    built = f"for CUDA {seen['cuda']}" if seen["cuda"] else "for the CPU"
    yield ok("torch", f"{seen['torch']}, built {built}; diffusers {seen['libraries']['diffusers']}")
    missing = [name for name, found in seen["libraries"].items() if found is None]
    if missing:
        yield wrong("packages", f"not installed: {', '.join(missing)}", "pip install -c constraints.txt -e '.[worker]'")
    for device in seen["devices"]:
        subject = f"gpu {device['index']}"
        memory = f"{device['name']}, {device['memory_bytes'] / GB:.0f} GB"
        if device["error"]:
            yield wrong(
                subject,
                f"{memory}: {device['error']}",
                "nvidia-smi -q, and dmesg | grep NVRM, say more; a reset or reboot may help",
            )
        else:
            yield ok(subject, f"{memory}, {device.get('free_bytes', 0) / GB:.0f} GB free")
    yield from _compare_gpus(len(seen["devices"]), seen["cuda"], settings)


def _compare_gpus(usable: int, cuda: str | None, settings: Settings) -> Iterator[Finding]:
    if settings.device.startswith("cuda") and int(settings.device.partition(":")[2] or 0) >= usable:
        yield wrong(
            "device",
            f"GRANULE_DEVICE is {settings.device}, and torch can use {usable} GPUs",
            "set auto or cpu, or mend the GPU",
        )
    if usable or settings.device == "cpu":
        return
    try:
        present = len(list_gpus())
    except SettingsInvalid:
        yield note("gpu", "none here: pictures are drawn on the CPU, which suits Granule mini only")
        return
    if cuda is None:
        cure = "install the CUDA build: rm -r .venv && TORCH_INDEX=cu126 ./granule up (cu130 for driver 580 or newer)"
    else:
        cure = f"the driver is too old for CUDA {cuda}, or the device files are closed: see nvidia-smi, then TORCH_INDEX=cu126"
    yield wrong("gpu", f"nvidia-smi lists {present}, and torch can use none", cure)


def check_resources(settings: Settings) -> Iterator[Finding]:
    """Look at free memory, at the disks that are written to, and at the limit of open files."""
    free = psutil.virtual_memory().available
    if free < MEMORY_WARNING_BYTES:
        yield warning(
            "memory", f"{free / GB:.1f} GB free; a worker that draws mini takes about 2", "end something, or add some"
        )
    else:
        yield ok("memory", f"{free / GB:.1f} GB free")
    folder = settings.data_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    yield _check_disk(folder)
    if not os.access(folder, os.W_OK):
        yield wrong("data folder", f"{folder} may not be written to by this user", "set DATA_DIR to a folder of yours")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < FILES_MIN:
        yield warning("open files", f"at most {files} for each process", f"ulimit -n {FILES_MIN}, or LimitNOFILE= in the unit")


def _check_disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    said = f"{free / GB:.1f} GB free at {folder}"
    if free < DISK_WRONG_BYTES:
        return wrong("disk", said, "make room: Redis and the storage stop writing when the disk is full")
    if free < DISK_WARNING_BYTES:
        return warning("disk", said, "make room, or set DATA_DIR to a larger disk")
    return ok("disk", said)
