"""Look at a weights file before anything is loaded from it.

A file is taken only if it is readable, is no Git LFS pointer, no pickle, matches its pins, and has a header that agrees
with its length. What fails is named together with what to do about it.

The format is safetensors (https://huggingface.co/docs/safetensors): eight bytes with the header's length, a JSON header,
then raw tensors. It cannot hold code, which is why no other format is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from shared.errors import WeightsInvalid

LFS_MARK = b"version https://git-lfs.github.com/spec/"
PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})
# torch.save writes a zip archive; older releases wrote a bare pickle of protocol 2 or above, the oldest a tar archive.
PICKLE_MARKS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
TAR_MARK = b"ustar"
TAR_MARK_OFFSET = 257
OPENING_BYTES = 512


@dataclass(frozen=True)
class WeightsFile:
    """A file that passed `inspect_file`: where it is, its length in bytes and its sha256 as 64 hex digits."""

    path: Path
    size_bytes: int
    sha256: str


def inspect_file(path: Path, *, sha256: str | None = None, size_bytes: int | None = None) -> WeightsFile:
    """Check one safetensors file against its pins, reading it once from end to end.

    The name's extension does not matter unless it is one that only pickles carry.

    Raises:
        WeightsInvalid: the file is absent, unreadable, an LFS pointer, a pickle, of another size or hash than pinned, or
            no sound safetensors file.
    """
    opening = read_opening(path)
    if path.suffix.lower() in PICKLE_SUFFIXES or _is_pickle(opening):
        raise WeightsInvalid(
            f"{path} is a pickle, which can run code when it is loaded; convert it to .safetensors and name that file"
        )
    found_bytes = path.stat().st_size
    if size_bytes is not None and found_bytes != size_bytes:
        raise WeightsInvalid(
            f"{path} has {found_bytes} bytes but its manifest pins {size_bytes}; fetch the file again, or change the pin"
        )
    with path.open("rb") as stream:
        found_sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 is not None and found_sha256 != sha256:
        raise WeightsInvalid(
            f"{path} has sha256 {found_sha256} but its manifest pins {sha256}; fetch the file again, or change the pin"
        )
    read_metadata(path)
    return WeightsFile(path, found_bytes, found_sha256)


def read_opening(path: Path) -> bytes:
    """Return the first 512 bytes of any file of a model, weights or not.

    Raises:
        WeightsInvalid: it is absent, a folder, empty, may not be read by this process, or is a Git LFS pointer.
    """
    try:
        with path.open("rb") as stream:
            opening = stream.read(OPENING_BYTES)
    except FileNotFoundError as error:
        raise WeightsInvalid(f"{path} does not exist; put the file there or correct the manifest") from error
    except PermissionError as error:
        raise WeightsInvalid(_explain_permission(path)) from error
    except OSError as error:
        raise WeightsInvalid(f"{path} cannot be read: {error.strerror}") from error
    if opening.startswith(LFS_MARK):
        raise WeightsInvalid(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` where it was cloned")
    if not opening:
        raise WeightsInvalid(f"{path} is empty; fetch the file again")
    return opening


def read_metadata(path: Path) -> dict[str, str]:
    """Return the free-text metadata of a safetensors file, {} if it has none.

    Raises:
        WeightsInvalid: the header is damaged, disagrees with the file's length, or there is none.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as tensors:
            return dict(tensors.metadata() or {})
    except SafetensorError as error:
        raise WeightsInvalid(f"{path} is no sound safetensors file ({error}); fetch or convert it again") from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a file that passed `inspect_file`, on the CPU and in the file's own dtypes.

    Raises:
        WeightsInvalid: the file holds no tensor, or one that is not finite.
    """
    try:
        tensors = load_file(path, device="cpu")
    except SafetensorError as error:
        raise WeightsInvalid(f"{path} is no sound safetensors file ({error}); fetch or convert it again") from error
    if not tensors:
        raise WeightsInvalid(f"{path} holds no tensor; it was written from an empty model")
    check_finite(path, tensors.items())
    return tensors


def check_finite(path: Path, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Refuse NaN and infinity. `path` is only named in the error.

    Raises:
        WeightsInvalid: names the first tensor that is not finite.
    """
    for name, tensor in tensors:
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsInvalid(f"{path}: tensor {name} holds NaN or infinity; the training run or the copy is damaged")


def digest_files(root: Path, files: Iterable[WeightsFile]) -> str:
    """Return one sha256 for a set of files under `root`: over the sorted lines `<sha256>  <relative name>`.

    It is what `sha256sum` prints for the names in C order, so an operator can compute a pin without Granule.
    """
    lines = sorted((file.path.relative_to(root).as_posix(), file.sha256) for file in files)
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in lines).encode()).hexdigest()


def _is_pickle(opening: bytes) -> bool:
    tar_mark = opening[TAR_MARK_OFFSET : TAR_MARK_OFFSET + len(TAR_MARK)]
    return opening.startswith(PICKLE_MARKS) or tar_mark == TAR_MARK


def _explain_permission(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return f"{path} may not be read by this process; it needs read permission on every folder above it"
    return (
        f"{path} may not be read by this process: mode {status.st_mode & 0o777:04o}, owner uid {status.st_uid}; "
        "safetensors writes files of mode 0600, so run `chmod a+r` on it"
    )
