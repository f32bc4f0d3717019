"""TCP ports for servers that only this machine talks to."""

from __future__ import annotations

import random
import socket
from pathlib import Path

# Below the ranges that Linux (32768-60999) and macOS (49152-65535) give to outgoing connections: a port picked here
# stays free while its server is being restarted.
FIRST_PORT, LAST_PORT = 20_000, 32_000
ATTEMPTS = 200


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As servers do it: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_block(count: int) -> range:
    """Pick `count` neighbouring free ports at random.

    Raises:
        OSError: no such block was found.
    """
    for _ in range(ATTEMPTS):
        first = random.randrange(FIRST_PORT, LAST_PORT - count)
        block = range(first, first + count)
        if all(is_free(port) for port in block):
            return block
    raise OSError(f"no {count} neighbouring ports are free between {FIRST_PORT} and {LAST_PORT}")


def remembered_block(file: Path, count: int) -> range:
    """Pick `count` neighbouring ports, the same as last time where they are still free; `file` holds the first."""
    try:
        first = int(file.read_text())
    except (OSError, ValueError):
        first = 0
    block = range(first, first + count)
    if not (FIRST_PORT <= first <= LAST_PORT - count and all(is_free(port) for port in block)):
        block = free_block(count)
    file.write_text(f"{block.start}\n")
    return block
