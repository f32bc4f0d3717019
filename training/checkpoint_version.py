"""The version id of a checkpoint that lies in this repository: `python -m training.checkpoint_version models/mini`.

It is made from the weights, so that other weights cannot keep the old id by mistake.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path


def checkpoint_version(folder: Path) -> str:
    """Return 64 hex digits: SHA-256 over the lines `sha256 two-spaces path` of the folder's safetensors files, by path."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*.safetensors"))
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m training.checkpoint_version", description="Prints a version id.")
    parser.add_argument("folder", type=Path)
    sys.stdout.write(checkpoint_version(parser.parse_args().folder) + "\n")
