"""`granule work --gpus all`: one render worker under its guardian on each GPU of a machine without containers.

Each is pinned by CUDA_VISIBLE_DEVICES, so a worker sees one device and cannot lean on another's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cli.crew import Crew
from cli.gpus import VISIBLE, Gpu, choose_gpus
from cli.screen import Screen
from infra.local.process import Program
from infra.local.terminal import Terminal
from shared.errors import SettingsInvalid
from shared.manifest import load_catalog
from shared.settings import Settings, load_settings

STOP_MARGIN_S = 10.0
OWN_DEVICES = ("auto", "cuda", "cuda:0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which GPUs are used."""
    add_gpus(parser, help="all, or a list of indexes and UUIDs such as 0,2 or GPU-8f2e3b1c (default: all)", default="all")


def add_gpus(parser: argparse.ArgumentParser, *, help: str, default: str | None = None) -> None:
    """Add what `granule work` takes."""
    parser.add_argument("--gpus", metavar="all|LIST", help=help, default=default)
    parser.add_argument("--app", default="worker.tasks", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace, screen: Screen) -> int:
    """Run them until SIGTERM or SIGINT. Returns 0 after a drain, 78 (EX_CONFIG) when none of them can work.

    Raises:
        SettingsInvalid: a setting or the list of GPUs is wrong.
        ModelUnknown: there is no manifest of the model that is to be served.
    """
    settings = load_settings()
    load_catalog(settings.models_dir, settings.version_aliases).by_slug(settings.model)
    gpus = choose_gpus(arguments.gpus, os.environ)
    programs = plan_workers(gpus, settings, os.environ, app=arguments.app)
    crew = Crew(programs, write_line=_writer(settings, Terminal(screen.err)))
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda *_: crew.request_stop())
    for gpu, program in zip(gpus, programs, strict=True):
        screen.say(f"{program.name}: {settings.model} on {gpu.name}, {gpu.uuid}")
    return crew.run()


def plan_workers(gpus: Sequence[Gpu], settings: Settings, environ: Mapping[str, str], *, app: str) -> tuple[Program, ...]:
    """Describe the guardian of each GPU. Raises SettingsInvalid when the settings send all workers elsewhere."""
    if settings.device not in OWN_DEVICES:
        raise SettingsInvalid(
            f"GRANULE_DEVICE={settings.device} contradicts --gpus: each worker sees one GPU only, as cuda:0; unset it",
            field="device",
        )
    return tuple(
        Program(
            name=f"gpu{gpu.index}",
            command=(sys.executable, "-m", "worker.guardian", "--app", app),
            env={**environ, **_pinned(gpu, place, settings)},
            cwd=Path.cwd(),
            grace_s=settings.grace_s + STOP_MARGIN_S,
        )
        for place, gpu in enumerate(gpus)
    )


def _pinned(gpu: Gpu, place: int, settings: Settings) -> dict[str, str]:
    """Return what differs between the workers. Their ports of metrics are counted up from the one that is set."""
    variables = {
        VISIBLE: gpu.uuid,
        # Named outright: with auto, a GPU that torch cannot use would have its worker draw on the CPU unnoticed.
        "GRANULE_DEVICE": "cuda",
        "PYTHONUNBUFFERED": "1",
    }
    return variables | ({"GRANULE_METRICS_PORT": str(settings.metrics_port + place)} if settings.metrics_port else {})


def _writer(settings: Settings, terminal: Terminal) -> Callable[[str, str], None]:
    """One log of all: each line led by its GPU, or with JSON lines, the GPU as a field of its own."""
    if settings.log_format == "text":
        return terminal.write

    def write(name: str, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            entry = {"message": line}
        sys.stderr.write(json.dumps({**entry, "gpu": name}, ensure_ascii=False) + "\n")

    return write
