"""The front door, with a Python that records what it is asked for instead of installing gigabytes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.settings import REPOSITORY

STUB = """#!/bin/sh
# Stands in for python, and for the python inside the environment that it pretends to make.
case "$*" in
'-m venv .venv')
    [ -z "${NO_ENSUREPIP:-}" ] || { echo 'ensurepip is not available'; exit 1; }
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    touch .venv/pip ;;
'-m venv --without-pip .venv')
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python ;;
'-m pip --python .venv/bin/python install pip')
    [ -z "${NO_PIP:-}" ] || exit 1
    touch .venv/pip ;;
*'-m pip --version'*)
    [ -e .venv/pip ] ;;
*'-m pip install'*--dry-run*--index-url*)
    [ -z "${OFFLINE:-}" ] || exit 1
    printf '{"install": [{"metadata": {"version": "2.13.0+cpu"}}]}' ;;
*'-m pip install'*--dry-run*)
    printf '{"install": [{"metadata": {"version": "%s"}}]}' "${OFFERED:-2.13.0+cpu}" ;;
*'-m pip install'*)
    echo "$*" >>calls
    sleep "${PIP_SECONDS:-0}"
    [ -z "${PIP_FAILS:-}" ] || { echo 'ERROR: No matching distribution'; exit 1; }
    case "$*" in *torch==*) echo "${OFFERED:-2.13.0+cpu}" >.venv/torch ;; esac ;;
*'version("torch")'*)
    cat .venv/torch 2>/dev/null ;;
'-m infra.local.cli'* | '-m pytest'* | '-P -m cli.main'*) echo "ran: $* in $PWD" ;;
*) exec REAL "$@" ;;
esac
"""


class House:
    """A folder with the front door and the two files that it installs by."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("granule", "pyproject.toml", "constraints.txt"):
            shutil.copy(REPOSITORY / name, folder / name)
        self.python = folder / "stub-python"
        self.python.write_text(STUB.replace("REAL", sys.executable))
        self.python.chmod(0o755)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        env = {"PATH": os.environ["PATH"], "PYTHON": str(self.python)} | variables
        command = [self.folder / "granule", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=env, text=True, stdout=pipe, stderr=pipe, start_new_session=True)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **variables)
        stdout, stderr = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def installs(self) -> list[str]:
        """What pip was asked to install, one entry for each time."""
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line.partition("--progress-bar off ")[2] for line in lines]


EVERYTHING = "-c .venv/constraints.txt -e .[local]"


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_the_script_is_plain_shell(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", REPOSITORY / "granule"], check=True)


def test_help_lists_every_command_and_needs_no_python(house: House) -> None:
    shown = house.run("help", PYTHON="/nonexistent")
    listed = {line.split()[0] for line in shown.stdout.partition("Commands:\n")[2].splitlines()}
    written = {line[4:].partition("(")[0] for line in (REPOSITORY / "granule").read_text().splitlines() if line[:4] == "cmd_"}
    assert listed == written >= {"demo", "up", "test", "lint", "help"}
    assert house.run().stdout == house.run("--help").stdout == shown.stdout


@pytest.mark.parametrize("command", ["paint", "cmd_up", "UP", "up;ls", "-x"])
def test_an_unknown_command_is_named(house: House, command: str) -> None:
    refused = house.run(command)
    assert refused.returncode == 1
    assert f"'{command}' is not a command" in refused.stderr


def test_the_second_start_installs_nothing(house: House) -> None:
    assert "ran: -m infra.local.cli up --x" in house.run("up", "--x").stdout
    assert house.installs() == ["--no-deps torch==2.13.0", EVERYTHING]
    assert "ran: -m infra.local.cli up" in house.run("up").stdout
    assert len(house.installs()) == 2


@pytest.mark.parametrize(
    ("command", "where"), [("render", "elsewhere"), ("models", "elsewhere"), ("doctor", "."), ("work", ".")]
)
def test_files_are_named_from_where_the_user_stands_and_data_from_where_it_lies(
    house: House, command: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = house.folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    ran = house.run(command, "50% red", "-o", "tile.png").stdout
    assert ran == f"ran: -P -m cli.main {command} 50% red -o tile.png in {(house.folder / where).resolve()}\n"


def test_dev_holds_what_local_does(house: House) -> None:
    assert "ran: -m pytest -k name" in house.run("test", "-k", "name").stdout
    count = len(house.installs())
    house.run("up")
    assert len(house.installs()) == count


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_what_is_wanted_installs_again(house: House, changed: str) -> None:
    house.run("up")
    with (house.folder / changed).open("a") as file:
        file.write("# a change\n")
    house.run("up")
    assert house.installs().count(EVERYTHING) == 2


def test_a_failed_install_shows_why_and_is_not_taken_for_good(house: House) -> None:
    failed = house.run("up", PIP_FAILS="1")
    assert failed.returncode == 1
    assert "No matching distribution" in failed.stderr and "pip could not install" in failed.stderr
    assert "ran: -m infra.local.cli up" in house.run("up").stdout


def test_an_interrupted_install_is_not_taken_for_good(house: House) -> None:
    process = house.start("up", PIP_SECONDS="30")
    while not house.installs():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does for Ctrl-C
    process.communicate(timeout=10)
    assert "ran: -m infra.local.cli up" in house.run("up").stdout
    assert house.installs()[-1] == EVERYTHING


def test_two_starts_at_once_install_once(house: House) -> None:
    both = [house.start("up", PIP_SECONDS="0.5") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert all("ran: -m infra.local.cli up" in stdout for stdout, _ in outputs)
    assert house.installs().count(EVERYTHING) == 1


def test_the_torch_that_is_there_is_kept(house: House) -> None:
    house.run("up")
    (house.folder / ".venv/torch").write_text("2.9.1+cu126")
    (house.folder / ".venv/.installed-local").unlink()
    (house.folder / "calls").unlink()
    kept = house.run("up")
    assert "keeping torch 2.9.1+cu126" in kept.stderr
    assert house.installs() == [EVERYTHING]
    assert "torch==2.9.1+cu126\n" in (house.folder / ".venv/constraints.txt").read_text()


def test_an_index_that_is_named_is_used(house: House) -> None:
    house.run("up", TORCH_INDEX="cu126")
    assert house.installs()[0] == "--no-deps --index-url https://download.pytorch.org/whl/cu126 torch==2.13.0"


no_nvidia = pytest.mark.skipif(
    sys.platform != "linux" or Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists(),
    reason="is about Linux without an NVIDIA device",
)


@no_nvidia
def test_a_machine_without_nvidia_gets_the_cpu_build(house: House) -> None:
    house.run("up", OFFERED="2.13.0")
    assert house.installs()[0] == "--no-deps --index-url https://download.pytorch.org/whl/cpu torch==2.13.0"


@no_nvidia
def test_gigabytes_of_cuda_are_announced(house: House) -> None:
    told = house.run("up", OFFERED="2.13.0", OFFLINE="1")
    assert "2.7 GB to download" in told.stderr and "TORCH_INDEX" in told.stderr
    assert house.installs()[0] == "--no-deps torch==2.13.0"


def test_debian_without_ensurepip_borrows_the_systems_pip(house: House) -> None:
    assert "ran: -m infra.local.cli up" in house.run("up", NO_ENSUREPIP="1").stdout


def test_without_ensurepip_and_pip_it_says_what_to_install(house: House) -> None:
    refused = house.run("up", NO_ENSUREPIP="1", NO_PIP="1")
    assert refused.returncode == 1
    assert "apt install python3-venv" in refused.stderr


@pytest.mark.parametrize("wrong", ["/nonexistent", "/bin/false"])
def test_a_python_that_cannot_work_is_named(house: House, wrong: str) -> None:
    refused = house.run("up", PYTHON=wrong)
    assert refused.returncode == 1
    assert f"PYTHON={wrong} is not a working Python 3.11 to 3.14" in refused.stderr


def test_without_any_python_it_says_what_to_install(house: House) -> None:
    tools = house.folder / "tools"
    tools.mkdir()
    for tool in ("sh", "dirname", "grep", "sed"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    refused = house.run("up", PYTHON="", PATH=str(tools))
    assert refused.returncode == 1
    assert "no Python 3.11 to 3.14 found" in refused.stderr
