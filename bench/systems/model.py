"""The stand-in model that every system serves: it sleeps, and gives a small picture of noise.

It needs NumPy and Pillow alone, for it is imported in the environment of each system. The moments at which it began and ended
a picture go to the file `BENCH_MARKS`, by the clock that all processes of a machine share.
"""

from __future__ import annotations

import io
import os
import time
from typing import Any

import numpy as np
from PIL import Image

SIZE_PX = 64
# A seed says how long its picture takes: 500_000_017 is the seventeenth order of 500 ms.
SEEDS_PER_MS = 1_000_000
PNG_COMPRESS_LEVEL = 1


def draw(seed: int) -> Any:
    """Return the picture of a seed, uint8 of shape 64 x 64 x 3, after the time that the seed says."""
    began_ns = time.monotonic_ns()
    time.sleep(sleep_s(seed))
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    mark(seed, began_ns)
    return pixels


def draw_png(seed: int) -> bytes:
    """Return the picture of a seed as a PNG file, about 12 KB."""
    file = io.BytesIO()
    Image.fromarray(draw(seed)).save(file, "PNG", compress_level=PNG_COMPRESS_LEVEL)
    return file.getvalue()


def sleep_s(seed: int) -> float:
    """How long the picture of a seed takes, in seconds."""
    return seed // SEEDS_PER_MS / 1000


def mark(seed: int, began_ns: int) -> None:
    """Note when the picture of a seed was begun, and that it is done now."""
    with open(os.environ["BENCH_MARKS"], "a", encoding="ascii") as marks:
        marks.write(f"{seed} {began_ns} {time.monotonic_ns()}\n")
