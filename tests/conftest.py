"""Fixtures that unit and integration tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.architecture import build_checkpoint


@pytest.fixture(scope="session")
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of mini's exact shape with random weights: base folder, LoRA and embeddings. Read it, never write to it."""
    folder = tmp_path_factory.mktemp("checkpoint") / "mini"
    build_checkpoint(folder)
    return folder
