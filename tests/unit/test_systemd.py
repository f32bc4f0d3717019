"""The systemd units: read by systemd itself where it is installed, and compared with the code they start."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from cli.main import COMMANDS
from shared.queue import DELIVER_QUEUE
from shared.settings import REPOSITORY, Settings, variables

FOLDER = REPOSITORY / "infra" / "systemd"
SERVICES = sorted(FOLDER.glob("*.service"))
TOOLS = ("gunicorn", "celery", "granule", "python")


def lines_of(unit: Path, name: str) -> list[str]:
    return [line.removeprefix(f"{name}=") for line in unit.read_text().splitlines() if line.startswith(f"{name}=")]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_every_unit(tmp_path: Path) -> None:
    def complaints(folder: Path) -> str:
        names = [str(unit) for unit in folder.iterdir() if "@." not in unit.name]
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *names]
        done = subprocess.run(
            command, capture_output=True, text=True, env={"SYSTEMD_UNIT_PATH": f"{folder}:", "PATH": "/usr/bin:/bin"}
        )
        # The driver's tool is where the driver is; the unit goes on without it.
        return "\n".join(line for line in done.stderr.splitlines() if "nvidia-modprobe" not in line)

    house, units = tmp_path / "granule", tmp_path / "units"
    (house / ".venv/bin").mkdir(parents=True)
    units.mkdir()
    for tool in TOOLS:
        (house / ".venv/bin" / tool).symlink_to("/bin/true")
    for unit in (*SERVICES, FOLDER / "granule.target"):
        (units / unit.name).write_text(unit.read_text().replace("/opt/granule", str(house)))
    (units / "granule-worker@0.service").write_text((units / "granule-worker@.service").read_text())
    assert complaints(units) == ""
    with (units / "granule-worker@0.service").open("a") as unit:
        unit.write("\n[Service]\nRestartsec=often\n")
    assert "Restartsec" in complaints(units)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_unit_starts_what_there_is(unit: Path) -> None:
    [line] = lines_of(unit, "ExecStart")
    program, *words = shlex.split(line)
    assert Path(program).name in TOOLS
    if program.endswith("granule"):
        assert words[0] in COMMANDS
    if program.endswith("celery"):
        assert words[words.index("--queues") + 1] == DELIVER_QUEUE
    assert lines_of(unit, "KillMode") == ["mixed"], "a worker told to stop beside its guardian would drop its job"
    set_here = [word.partition("=")[0] for line in lines_of(unit, "Environment") for word in shlex.split(line)]
    assert {name for name in set_here if name.startswith("GRANULE_")} <= set(variables())


@pytest.mark.parametrize("unit", [unit for unit in SERVICES if "worker" in unit.name], ids=lambda unit: unit.name)
def test_a_worker_has_time_to_finish_before_systemd_kills_it(unit: Path) -> None:
    settings = dict(word.split("=") for line in lines_of(unit, "Environment") for word in shlex.split(line))
    [stop_s] = lines_of(unit, "TimeoutStopSec")
    assert float(stop_s) > float(settings["GRANULE_GRACE_S"]) + 30
    assert float(settings["GRANULE_GRACE_S"]) >= Settings.model_fields["job_limit_s"].default


def test_the_example_of_settings_names_settings() -> None:
    named = [line.lstrip("#").partition("=")[0] for line in (FOLDER / "granule.env.example").read_text().splitlines()]
    settings = {name for name in named if name.isupper()}
    assert settings <= set(variables()) and len(settings) > 5
