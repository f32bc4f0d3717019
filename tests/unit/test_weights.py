import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from shared.errors import WeightsInvalid
from worker.weights import digest_files, inspect_file, read_metadata, read_tensors

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:3250\nsize 101961928\n"
NOBODY = 65534


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tile.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3)}, path, metadata={"format": "pt"})
    return path


@contextmanager
def unprivileged() -> Iterator[None]:
    """Act as a user for whom file modes count; root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_sound_file_passes_with_its_size_and_hash(weights: Path) -> None:
    content = weights.read_bytes()
    found = inspect_file(weights, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    assert (found.size_bytes, found.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert read_metadata(weights) == {"format": "pt"}
    assert torch.equal(read_tensors(weights)["a"], torch.arange(6.0).reshape(2, 3))


def test_the_extension_does_not_matter_when_the_content_is_safetensors(weights: Path) -> None:
    assert inspect_file(weights.rename(weights.with_suffix(".pti"))).size_bytes > 0


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("pointer.safetensors", POINTER, "git lfs pull"),
        ("empty.safetensors", b"", "is empty"),
        ("page.safetensors", b"<!DOCTYPE html><title>404</title>", "no sound safetensors file"),
        ("bomb.safetensors", b"\xff" * 16, "no sound safetensors file"),
        ("pickle.safetensors", b"\x80\x04\x95\x00\x00", "is a pickle"),
        ("archive.safetensors", b"PK\x03\x04" + b"\x00" * 60, "is a pickle"),
        ("tar.safetensors", b"\x00" * 257 + b"ustar" + b"\x00" * 250, "is a pickle"),
    ],
)
def test_what_is_no_safetensors_file_is_refused_by_content(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsInvalid, match=says) as caught:
        inspect_file(tmp_path / name)
    assert name in caught.value.detail


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".CKPT"])
def test_names_of_pickles_are_refused_whatever_they_hold(weights: Path, suffix: str) -> None:
    with pytest.raises(WeightsInvalid, match="convert it to .safetensors"):
        inspect_file(weights.rename(weights.with_suffix(suffix)))


def test_a_real_pickle_of_torch_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsInvalid, match="is a pickle"):
        inspect_file(tmp_path / "a.safetensors")


def test_absent_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsInvalid, match=r"gone\.safetensors does not exist"):
        inspect_file(tmp_path / "gone.safetensors")
    with pytest.raises(WeightsInvalid, match="cannot be read: Is a directory"):
        inspect_file(tmp_path)


def test_pins_are_compared(weights: Path) -> None:
    with pytest.raises(WeightsInvalid, match="pins 101961928"):
        inspect_file(weights, size_bytes=101961928)
    with pytest.raises(WeightsInvalid, match=f"pins {'0' * 64}"):
        inspect_file(weights, sha256="0" * 64)


def test_a_pointer_is_called_a_pointer_even_where_the_size_is_pinned(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(POINTER)
    with pytest.raises(WeightsInvalid, match="Git LFS pointer"):
        inspect_file(tmp_path / "a.safetensors", size_bytes=101961928)


def test_a_cut_file_is_refused(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(WeightsInvalid, match="no sound safetensors file"):
        inspect_file(weights)


def test_a_private_file_of_another_user_says_how_to_open_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tile.safetensors"
        save_file({"a": torch.zeros(1)}, path)
        os.chmod(folder, 0o755)
        path.chmod(0o600 if os.geteuid() == 0 else 0o000)
        with unprivileged(), pytest.raises(WeightsInvalid, match=r"mode 0[06]00, owner uid \d+.*chmod a\+r"):
            inspect_file(path)


def test_a_file_in_a_closed_folder_points_at_the_folder() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inner" / "tile.safetensors"
        path.parent.mkdir()
        save_file({"a": torch.zeros(1)}, path)
        path.parent.chmod(0o000)
        try:
            with unprivileged(), pytest.raises(WeightsInvalid, match="every folder above"):
                inspect_file(path)
        finally:
            path.parent.chmod(0o755)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_tensors_that_are_not_finite_are_named(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"good": torch.zeros(2), "broken": torch.tensor([0.0, bad], dtype=torch.bfloat16)}, path)
    with pytest.raises(WeightsInvalid, match="tensor broken holds NaN or infinity"):
        read_tensors(path)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsInvalid, match="holds no tensor"):
        read_tensors(tmp_path / "a.safetensors")


def test_the_digest_of_a_folder_is_what_sha256sum_gives_and_knows_names(tmp_path: Path) -> None:
    for name in ("unet", "vae"):
        (tmp_path / name).mkdir()
        save_file({name: torch.zeros(1)}, tmp_path / name / "model.safetensors")
    files = [inspect_file(path) for path in tmp_path.glob("*/*.safetensors")]
    files.sort(key=lambda file: file.path)
    listing = "".join(f"{file.sha256}  {file.path.parent.name}/model.safetensors\n" for file in files)
    assert digest_files(tmp_path, files) == hashlib.sha256(listing.encode()).hexdigest()
    swapped = [type(a)(b.path, a.size_bytes, a.sha256) for a, b in zip(files, reversed(files), strict=True)]
    assert digest_files(tmp_path, swapped) != digest_files(tmp_path, files)
