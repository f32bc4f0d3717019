"""The NVIDIA GPUs of this machine, and which of them somebody means by `all`, `0,2`, `GPU-8f2e...` or `MIG-5a1c...`.

What a worker is pinned to is the device's UUID: CUDA counts devices by speed unless told otherwise, nvidia-smi by their
place on the bus, and both renumber when one drops out.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.errors import SettingsInvalid

LIST_TIMEOUT_S = 60.0
VISIBLE = "CUDA_VISIBLE_DEVICES"
WHOLE = re.compile(r"GPU (\d+): (.+) \(UUID: (GPU-[0-9a-fA-F-]+)\)")
PART = re.compile(r"\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-[^)\s]+)\)")
UUID = re.compile(r"(?:GPU|MIG)-[0-9a-zA-Z/-]{4,}")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device that a worker can have to itself: a GPU, or a part of one that is divided by MIG.

    `index` is nvidia-smi's, with `:` and the part's own for a part.
    """

    index: str
    name: str
    uuid: str


def choose_gpus(wanted: str, environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Return the devices that `wanted` names, in its order. `all` keeps to CUDA_VISIBLE_DEVICES where that is set.

    Raises:
        SettingsInvalid: nvidia-smi finds none, there is none of that name, or one is named twice.
    """
    present = list_gpus()
    if wanted.strip().lower() == "all":
        visible = environ.get(VISIBLE)
        if visible is None:
            return present
        if not visible.strip():
            raise SettingsInvalid(f"{VISIBLE} is empty, which hides every GPU: unset it, or name GPUs in it", field="gpus")
        wanted = visible
    words = [word.strip() for word in wanted.split(",") if word.strip()]
    if not words:
        raise SettingsInvalid("--gpus is all, or a list such as 0,2 or GPU-8f2e3b1c-...", field="gpus")
    chosen = [gpu for word in words for gpu in _find(word, present)]
    twice = [gpu.index for gpu in chosen if chosen.count(gpu) > 1]
    if twice:
        raise SettingsInvalid(
            f"GPU {twice[0]} is named twice; two workers on one GPU share its memory and its time", field="gpus"
        )
    return tuple(chosen)


def list_gpus() -> tuple[Gpu, ...]:
    """Ask nvidia-smi for every device; of a GPU that is divided, its parts.

    Raises:
        SettingsInvalid: there is no nvidia-smi, its driver does not answer, or it lists nothing.
    """
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=LIST_TIMEOUT_S, check=True).stdout
    except FileNotFoundError as error:
        raise SettingsInvalid(
            "nvidia-smi is not on PATH, so no GPU can be found: install the NVIDIA driver. On a machine without a GPU, "
            "python -m worker.guardian runs one worker on the CPU",
            field="gpus",
        ) from error
    except subprocess.CalledProcessError as error:
        raise SettingsInvalid(f"nvidia-smi fails: {(error.stdout + error.stderr).strip()}", field="gpus") from error
    except subprocess.TimeoutExpired as error:
        raise SettingsInvalid(
            f"nvidia-smi gave no answer for {LIST_TIMEOUT_S:.0f} s: the driver hangs", field="gpus"
        ) from error
    found = parse_list(listed)
    if not found:
        raise SettingsInvalid(f"nvidia-smi lists no GPU: {listed.strip() or 'its list is empty'}", field="gpus")
    return found


def parse_list(listed: str) -> tuple[Gpu, ...]:
    """Read the output of `nvidia-smi -L`."""
    gpus: list[Gpu] = []
    parts: list[Gpu] = []
    for line in listed.splitlines():
        if whole := WHOLE.match(line):
            gpus.append(Gpu(*whole.groups()))
        elif (part := PART.match(line)) and gpus:
            owner = gpus[-1]
            parts.append(Gpu(f"{owner.index}:{part[2]}", f"{owner.name} MIG {part[1]}", part[3]))
    divided = {part.index.partition(":")[0] for part in parts}
    whole_ones = [gpu for gpu in gpus if gpu.index not in divided]
    return tuple(sorted(whole_ones + parts, key=lambda gpu: [int(number) for number in gpu.index.split(":")]))


def _find(word: str, present: Sequence[Gpu]) -> list[Gpu]:
    """Find by index (that of a divided GPU stands for all its parts) or by UUID or the unmistakable start of one."""
    if UUID.fullmatch(word):
        found = [gpu for gpu in present if gpu.uuid.lower().startswith(word.lower())]
        if len(found) > 1:
            raise SettingsInvalid(f"{word} is the start of {len(found)} UUIDs; write more of it", field="gpus")
    else:
        found = [gpu for gpu in present if word in (gpu.index, gpu.index.partition(":")[0])]
    if not found:
        listed = "; ".join(f"{gpu.index} ({gpu.name}, {gpu.uuid})" for gpu in present)
        raise SettingsInvalid(f"there is no GPU {word} here; there is {listed}", field="gpus")
    return found
