"""`python -m tests.faults`: every numbered fault, then the nemesis for as long as wished, with a report."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pytest

from tests.faults.nemesis import Nemesis, battlefield

GUARDIANS = 3


def main() -> int:
    """Return 0 if every fault was survived with its figure and the history holds."""
    parser = argparse.ArgumentParser(prog="granule faults", description="Breaks everything and looks what clients notice.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the nemesis rages (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="what its dice start from (default: %(default)s)")
    parser.add_argument("--nemesis-only", action="store_true", help="leave the numbered faults out")
    arguments = parser.parse_args()
    numbered = 0
    if not arguments.nemesis_only:
        numbered = pytest.main([str(Path(__file__).parent), "-m", "long or not long", "-k", "not nemesis"])
    with tempfile.TemporaryDirectory(prefix="granule-faults-") as folder, battlefield(Path(folder)) as system:
        report = Nemesis(system, seed=arguments.seed, guardians=GUARDIANS).run(60 * arguments.minutes)
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return int(bool(numbered or report.violations))


if __name__ == "__main__":
    sys.exit(main())
