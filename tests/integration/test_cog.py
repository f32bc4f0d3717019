"""The Cog packaging, served by Cog's own server, with the inputs of the service that Granule replaces."""

from __future__ import annotations

import ast
import base64
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image

from infra.local.ports import free_block
from shared.manifest import load_catalog
from shared.settings import REPOSITORY, variables
from tests.integration.processes import wait_until

FOLDER = REPOSITORY / "infra" / "cog"
MODEL = "granule/rubber-tile-mini"

needs_cog = pytest.mark.skipif(find_spec("coglet") is None, reason="cog is not installed: it has no wheel for this system")


@contextmanager
def cog_server(folder: Path, **extra: str) -> Iterator[str]:
    """Address of Cog's server once the model is warm."""
    port = free_block(1)[0]
    environ = {
        # Cog starts whatever python3 is first on PATH.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PORT": str(port),
        "COG_PREDICT_TYPE_STUB": yaml.safe_load((FOLDER / "cog.yaml").read_text())["predict"],
        "GRANULE_MODEL": MODEL,
        **extra,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"],
            cwd=REPOSITORY,
            env=environ,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: status(address) in ("READY", "SETUP_FAILED"), timeout_s=240)
        assert status(address) == "READY", (folder / "log").read_text()
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def server(small_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serves mini's architecture with random weights, 256 pixels in two steps."""
    extra = {"GRANULE_MODELS_DIR": str(small_models), "GRANULE_TORCH_THREADS": "1"}
    with cog_server(tmp_path_factory.mktemp("cog"), **extra) as address:
        yield address


def status(address: str) -> str:
    try:
        return str(httpx.get(f"{address}/health-check").json()["status"])
    except httpx.TransportError:
        return ""


def predict(address: str, **given: Any) -> dict[str, Any]:
    answer = httpx.post(f"{address}/predictions", json={"input": given}, timeout=240)
    found: dict[str, Any] = answer.json()
    return found


def picture_of(prediction: dict[str, Any]) -> Image.Image:
    assert prediction["status"] == "succeeded", prediction
    kind, _, data = prediction["output"].partition(";base64,")
    assert kind == "data:image/png"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@needs_cog
def test_the_same_seed_draws_the_same_tile(server: str) -> None:
    first, second, other = (predict(server, prompt="50% red, 30% black, 20% pearl", seed=seed) for seed in (7, 7, 8))
    assert picture_of(first).size == (256, 256)
    assert first["output"] == second["output"] != other["output"]


@needs_cog
def test_a_mix_that_cannot_be_drawn_fails_with_our_sentence(server: str) -> None:
    failed = predict(server, prompt="50% red, 90% black")
    assert failed["status"] == "failed" and "140" in failed["error"]


@needs_cog
@pytest.mark.long
def test_mini_itself_draws(tmp_path: Path) -> None:
    render = load_catalog(REPOSITORY / "models").by_slug(MODEL).render
    with cog_server(tmp_path) as address:
        made = predict(address, prompt="50% red, 30% black, 20% pearl", seed=7)
    assert picture_of(made).size == (render.width_px, render.height_px)


def test_the_inputs_are_those_of_the_service_that_is_replaced() -> None:
    tree = ast.parse((FOLDER / "predict.py").read_text())
    [predict] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "predict"]
    assert [argument.arg for argument in predict.args.args] == ["self", "prompt", "negative_prompt", "seed"]


def test_the_packaging_names_what_this_repository_has() -> None:
    build = yaml.safe_load((FOLDER / "cog.yaml").read_text())
    assert set(build["build"]["system_packages"]) == {"libgl1", "libglib2.0-0"} and build["build"]["gpu"] is True
    assert {entry.partition("=")[0] for entry in build["environment"]} - set(variables()) == {"HF_HUB_OFFLINE"}
    assert (REPOSITORY / build["predict"].partition(":")[0]).is_file()
    pins = re.findall(r"^\w.*$", (REPOSITORY / build["build"]["python_requirements"]).read_text(), re.MULTILINE)
    assert set(pins) <= set((REPOSITORY / "constraints.txt").read_text().splitlines())
