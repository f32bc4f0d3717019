"""Everything at once, at random, for half a minute; `./granule faults` does it for longer."""

from __future__ import annotations

import sys

import pytest

from tests.faults.conftest import Figure
from tests.faults.nemesis import Nemesis, battlefield

SEED = 2194
"""Its dice begin with a reply lost, a guardian stopped, Redis and a worker killed, and a worker drained."""


@pytest.mark.timeout(300)
def test_27_nemesis(tmp_path_factory: pytest.TempPathFactory, figure: Figure) -> None:
    with battlefield(tmp_path_factory.mktemp("nemesis")) as system:
        report = Nemesis(system, seed=SEED, guardians=2).run(30, pause_s=0.5, order_pause_s=1.5)
        sys.stdout.write("\n".join(report.lines()) + "\n")
        assert report.violations == []
        assert report.jobs > 5 and report.batched > 0 and report.faults["worker drained"]
        figure(f"{report.jobs} jobs, {report.faults.total()} faults: drained after", report.drain_s, 30.0)
