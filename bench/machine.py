"""Says what kind of machine a measurement was taken on, without saying whose."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version

import psutil

LIBRARIES = ("torch", "diffusers", "celery", "redis", "numpy", "pillow")


def describe_machine() -> dict[str, object]:
    """Return processor, cores, memory, system and library versions, and how busy the machine is with other work.

    `load_before` is the mean number of runnable processes over the last minute: above 0 the figures are of a shared machine.
    """
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "load_before": round(os.getloadavg()[0], 2),
    }


def sentence(machine: Mapping[str, object]) -> str:
    """One line about a machine, for the head of a table."""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}; load before the run {machine['load_before']}"
    )


def _processor() -> str:
    """The model name the system gives the processor, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
