"""Measures what it takes to encode a finished tile as PNG: `python -m bench.encoding [PICTURE...]`.

Without pictures it paints one tile of three colours at 1024 x 1024; give it tiles that a model drew for figures that count.
Each row is the fastest of ten times, in ms, and the size in MB, for one zlib level and strategy. The last line says for how
long a second thread had to wait for Python's lock while tiles were encoded: what the drawing notices of it.
"""

from __future__ import annotations

import argparse
import io
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.tiles import painted_tile
from worker.images import encode

TIMES = 10
STRATEGIES = {-1: "filtered", zlib.Z_HUFFMAN_ONLY: "Huffman only", zlib.Z_RLE: "run lengths"}
"""How zlib looks for repetitions; Pillow takes the first unless it is told otherwise."""
ROWS = [*((-1, level) for level in range(10)), (zlib.Z_HUFFMAN_ONLY, 1), (zlib.Z_RLE, 1)]
WATCHED_S = 3.0
TICK_S = 0.0005


def main() -> None:
    """Measure every picture and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.encoding", description="Measures PNG encoders on tiles.")
    parser.add_argument("picture", nargs="*", type=Path, help="picture files; without any, one tile is painted")
    pictures = [(str(file), _read(file)) for file in parser.parse_args().picture] or [("painted", painted_tile())]
    for name, pixels in pictures:
        sys.stdout.write(f"{name}, {pixels.shape[1]} x {pixels.shape[0]}\nstrategy      level     ms     MB\n")
        for strategy, level in ROWS:
            took_s, size_bytes = best_of(pixels, strategy, level)
            sys.stdout.write(f"{STRATEGIES[strategy]:12}  {level:5}  {1000 * took_s:5.0f}  {size_bytes / 1e6:5.2f}\n")
        worst_s = stall_s(pixels)
        sys.stdout.write(f"while it is encoded, another thread waits for the lock at worst {1000 * worst_s:.1f} ms\n")


def best_of(pixels: NDArray[np.uint8], strategy: int, level: int) -> tuple[float, int]:
    """Return the shortest time of ten to encode `pixels` (height x width x 3), in seconds, and the size in bytes."""
    picture, best_s, size_bytes = Image.fromarray(pixels), float("inf"), 0
    for _ in range(TIMES):
        file, started_s = io.BytesIO(), time.perf_counter()
        picture.save(file, "PNG", compress_level=level, compress_type=strategy)
        best_s, size_bytes = min(best_s, time.perf_counter() - started_s), file.tell()
    return best_s, size_bytes


def stall_s(pixels: NDArray[np.uint8]) -> float:
    """Return by how much the 99th percentile of naps of 0.5 ms was too long while another thread encoded all the time."""
    done = threading.Event()

    def encode_on() -> None:
        while not done.is_set():
            encode(pixels, output_format="png", output_quality=90, parameters={})

    thread = threading.Thread(target=encode_on)
    thread.start()
    naps: list[float] = []
    end_s = time.perf_counter() + WATCHED_S
    while (began_s := time.perf_counter()) < end_s:
        time.sleep(TICK_S)
        naps.append(time.perf_counter() - began_s - TICK_S)
    done.set()
    thread.join()
    return sorted(naps)[int(len(naps) * 0.99)]


def _read(file: Path) -> NDArray[np.uint8]:
    return np.array(Image.open(file).convert("RGB"))


if __name__ == "__main__":
    main()
