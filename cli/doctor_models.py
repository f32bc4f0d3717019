"""The doctor on the models: manifests and palette, and the files of the model that a worker here would serve."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import psutil

from cli.child import ChildFailed, ask
from cli.findings import Finding, note, ok, warning, wrong
from shared.errors import GranuleError, ManifestInvalid, ModelUnknown
from shared.manifest import Manifest, load_catalog
from shared.settings import Settings

VERDICT_TIMEOUT_S = 1800.0
GB = 1_000_000_000
BYTES_OF_FLOAT32 = 4
PROCESS_BYTES = 1_200_000_000
"""What a worker takes beside the weights: torch and the libraries."""
READABLE_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH


def check_models(settings: Settings, *, digests: bool) -> Iterator[Finding]:
    """Read every manifest and palette, and with `digests` have the loader judge each file of GRANULE_MODEL."""
    try:
        catalog = load_catalog(settings.models_dir, settings.version_aliases)
        served = catalog.by_slug(settings.model)
    except ModelUnknown as error:
        yield wrong("model", error.detail, "correct GRANULE_MODEL, or put its manifest into GRANULE_MODELS_DIR")
        return
    except ManifestInvalid as error:
        yield wrong("models", error.detail, "correct the manifest; docs/models.md explains every key")
        return
    except GranuleError as error:
        yield wrong("palette", error.detail, "correct the palette; models/palette.toml explains itself")
        return
    yield ok("models", f"{len(catalog.models)} manifests; {served.slug} has {len(served.colors.colors)} colours")
    for manifest in catalog.models:
        if manifest is not served:
            yield from _check_other(manifest, settings)
    yield from _check_modes(served, settings)
    if digests:
        yield from _check_files(served)


def _check_files(manifest: Manifest) -> Iterator[Finding]:
    try:
        verdicts = ask("worker.verdict", ["--model", manifest.slug], timeout_s=VERDICT_TIMEOUT_S)
    except ChildFailed as error:
        yield note("weights", f"the files of {manifest.slug} were not judged: {error.detail}")
        return
    for verdict in verdicts:
        name = Path(verdict["path"]).name
        if verdict["refusal"]:
            yield wrong("weights", verdict["refusal"], "docs/models.md lists every such error with its cure")
        else:
            yield ok("weights", f"{name} loads; sha256 {verdict['facts']['sha256'][:16]}...")
        if "parameters" in verdict["facts"]:
            yield from _check_memory(verdict["facts"]["parameters"])


def _check_memory(parameters: int) -> Iterator[Finding]:
    """A base is loaded in float32 before it is cast and moved; a worker that meets its end there says nothing."""
    needed, free = BYTES_OF_FLOAT32 * parameters + PROCESS_BYTES, psutil.virtual_memory().available
    if free < needed:
        detail = f"a worker takes about {needed / GB:.0f} GB while it loads, and {free / GB:.0f} GB are free"
        yield warning("memory", detail, "end something, add memory or swap, and start workers one after the other")


def _check_modes(manifest: Manifest, settings: Settings) -> Iterator[Finding]:
    """Safetensors writes files that only their owner can read; a worker often runs as somebody else."""
    closed = [path for path in _files_of(manifest, settings) if not path.stat().st_mode & READABLE_BY_OTHERS]
    if closed:
        yield warning(
            "weights",
            f"{len(closed)} files can be read by their owner only, such as {closed[0]}",
            f"chmod -R a+rX {closed[0].parent}, if the workers run as another user",
        )


def _check_other(manifest: Manifest, settings: Settings) -> Iterator[Finding]:
    if not _files_of(manifest, settings):
        yield note("models", f"the files of {manifest.slug} are not here: a worker that is to serve it needs them")


def _files_of(manifest: Manifest, settings: Settings) -> list[Path]:
    parts = [part.file for part in (manifest.lora, manifest.textual_inversion) if part is not None]
    places = [manifest.path_of(file, settings.weights_dir) for file in parts]
    base = manifest.path_of(manifest.base, settings.weights_dir)
    try:
        return [path for path in (*places, *base.rglob("*")) if path.is_file()]
    except OSError:
        return []
