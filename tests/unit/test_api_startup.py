from __future__ import annotations

import resource
import subprocess
import sys

HEAVY = ("torch", "diffusers", "transformers", "numpy", "PIL")
SCRIPT = f"""
import sys
import api.server
api.server.create_app()
sys.stdout.write(",".join(name for name in {HEAVY!r} if name in sys.modules))
"""


def test_the_api_starts_in_under_a_second_and_without_the_renderer() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time: on a busy machine the clock on the wall measures its neighbours.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
    assert started.stdout == ""
