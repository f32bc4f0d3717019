"""Fixtures of the fault suite, and its report: one line for each fault with the figures it was measured to take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.history import check
from tests.faults.system import System, running

NOISE = 3.0
"""A figure counts as held up to this many times its value: machines that run tests are busy with other things."""
LINES: list[str] = []

QUICK = {"grace_s": 3, "step_limit_s": 10, "freeze_limit_s": 5, "publish_limit_s": 8}
"""Settings that make a fault's consequences come soon; lease and heartbeat stay as they are shipped.

One call to a storage that hangs may take 18 s, longer than a step may: publishing has a limit of its own.
"""

Figure = Callable[..., None]


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Notes a measured value for the report, and fails the test if it is far above its limit."""

    def note(what: str, value: float, limit: float, unit: str = "s", *, noise: float = NOISE) -> None:
        LINES.append(f"{request.node.name:58} {what:42} {value:8.2f} {unit} (limit {limit:g})")
        assert value <= limit * noise, f"{what}: {value:.2f} {unit}, limit {limit:g}"

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the figures of the faults that were run."""
    if LINES:
        terminalreporter.section("faults")
        for line in LINES:
            terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system whose processes live on from one test of a module to the next."""
    with running(tmp_path_factory.mktemp("house"), **QUICK) as system:
        yield system


@pytest.fixture
def system(house: System) -> Iterator[System]:
    """The module's system, whole when the test begins; afterwards everything that clients were told must be true."""
    house.heal()
    yield house
    house.heal()
    assert violations(house) == []


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system of the test's own with the settings as shipped; nothing but the servers runs."""
    with running(tmp_path_factory.mktemp("fresh")) as system:
        yield system


def violations(system: System) -> list[Any]:
    """What the history checker finds once every job has ended and every webhook that is due was sent."""
    system.ended(*(job.id for job in system.jobs()))
    system.clear_up()
    return check([*system.history, *system.receiver.told], system.ending())
