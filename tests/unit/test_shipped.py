"""What the repository hands out is there, whole, and named truly."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path

import pytest

from shared.manifest import load_manifest
from shared.settings import REPOSITORY
from training.checkpoint_version import checkpoint_version

MINI = REPOSITORY / "models" / "mini"
PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((REPOSITORY / "docs").rglob("*.md")) + sorted((REPOSITORY / "models").rglob("*.md"))


def tracked(folder: Path) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", str(folder)], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [REPOSITORY / name for name in listed.stdout.split("\0") if name]


def test_minis_weights_are_all_there_small_and_readable() -> None:
    files = tracked(MINI)
    manifest = load_manifest(REPOSITORY / "models" / "rubber-tile-mini.toml")
    assert manifest.lora and manifest.textual_inversion
    assert {manifest.path_of(manifest.lora.file), manifest.path_of(manifest.textual_inversion.file)} <= set(files)
    assert {path.parent.name for path in files if path.suffix == ".safetensors"} >= {"unet", "vae", "text_encoder"}
    assert sum(path.stat().st_size for path in files) <= 30e6
    assert [path for path in files if not path.stat().st_mode & stat.S_IROTH] == []


def test_minis_version_is_that_of_its_weights() -> None:
    manifest = load_manifest(REPOSITORY / "models" / "rubber-tile-mini.toml")
    assert manifest.version == checkpoint_version(MINI), "run: python -m training.checkpoint_version models/mini"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_between_the_pages_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)\s#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
