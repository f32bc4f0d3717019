"""Fixtures that unit and integration tests share."""

from __future__ import annotations

import copy
import signal
from pathlib import Path
from typing import Any

import pytest

# torch and diffusers take seconds to import and most tests need neither, so the fixtures import them when they are asked for.


def pytest_configure() -> None:
    """Let an interrupt interrupt: a shell starts background jobs with SIGINT ignored, and children inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of mini's exact shape with random weights: base folder, LoRA and embeddings. Read it, never write to it."""
    import torch  # noqa: PLC0415

    from training.architecture import build_checkpoint  # noqa: PLC0415

    # Threads that outnumber the idle cores wait for each other; one is the fastest while other tests and servers run.
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("checkpoint") / "mini"
    build_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def pristine_pipeline(checkpoint_dir: Path) -> Any:
    """The checkpoint's base as a diffusers pipeline, float32, without LoRA and embeddings. Never change it."""
    from training.architecture import build_scheduler  # noqa: PLC0415
    from worker.base_model import load_base  # noqa: PLC0415
    from worker.loading import quieten_libraries  # noqa: PLC0415

    quieten_libraries()
    return load_base(checkpoint_dir, build_scheduler()).pipeline


@pytest.fixture
def base_pipeline(pristine_pipeline: Any) -> Any:
    """A copy of the base pipeline whose models a test may change; the tokenizers are still the shared ones."""
    models = {name: copy.deepcopy(getattr(pristine_pipeline, name)) for name in ("unet", "text_encoder", "text_encoder_2")}
    return type(pristine_pipeline)(**{**pristine_pipeline.components, **models}, add_watermarker=False)
