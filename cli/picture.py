"""Saving a prediction's pictures: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

import requests

from cli.client import Api, ApiUnreachable
from shared.errors import GranuleError, InputInvalid
from shared.wire import Prediction

CHUNK_BYTES = 65_536
STANDARD_OUTPUT = "-"
FORMATS = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}
"""The output format that each ending of a file name asks for."""


class NothingToSave(GranuleError):
    """The prediction has no picture, or none any more."""

    code = "nothing_to_save"


def check_target(target: str) -> None:
    """See that a file could be written there, before anything is ordered.

    Raises:
        InputInvalid: it is a folder's name with another file in its place, or its folder may not be written to.
    """
    if target == STANDARD_OUTPUT:
        return
    folder = Path(target) if _is_folder(target) else Path(target).parent
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputInvalid(f"no file can be written to {folder}; name another with -o", field="output")


def save(api: Api, made: Prediction, target: str) -> list[str]:
    """Fetch the pictures of a prediction that succeeded and return where they are.

    `target` is a file; a folder, which gets them under their own names; or `-` for standard output. Several pictures in
    one file name get `-2`, `-3` before its ending.

    Raises:
        NothingToSave: there is none; the text says why.
        ApiUnreachable: a picture broke off, or cannot be fetched or written.
    """
    output = made["output"]
    addresses = [output] if isinstance(output, str) else output or []
    if made["data_removed"]:
        raise NothingToSave(f"the picture of {made['id']} was removed")
    if not addresses:
        raise NothingToSave(f"{made['id']} has no picture: it {_outcome(made)}")
    return [_save_one(api, address, _place(target, address, index)) for index, address in enumerate(addresses)]


def _outcome(made: Prediction) -> str:
    return f"failed: {made['error']}" if made["status"] == "failed" else f"is {made['status']}"


def _is_folder(target: str) -> bool:
    return target.endswith(os.sep) or Path(target).is_dir()


def _place(target: str, address: str, index: int) -> str:
    if target == STANDARD_OUTPUT:
        return target
    if _is_folder(target):
        # The last part alone, and of that no path: the name comes from outside.
        name = Path(unquote(urlsplit(address).path)).name.replace(os.sep, "_").lstrip(".")
        return str(Path(target) / (name or "tile"))
    path = Path(target)
    return str(path if index == 0 else path.with_name(f"{path.stem}-{index + 1}{path.suffix}"))


def _save_one(api: Api, address: str, place: str) -> str:
    with api.open(address) as response:
        kind = response.headers.get("Content-Type", "")
        if not kind.startswith("image/"):
            raise ApiUnreachable(f"{address} is no picture but {kind or 'of no stated kind'}")
        try:
            with _opened(place) as file:
                for chunk in response.iter_content(CHUNK_BYTES):
                    file.write(chunk)
        except requests.RequestException as error:
            raise ApiUnreachable(f"the picture broke off, and nothing was saved: {error}") from error
        except BrokenPipeError:
            raise
        except OSError as error:
            raise NothingToSave(f"{place} cannot be written: {error.strerror}") from error
    return place


@contextlib.contextmanager
def _opened(place: str) -> Iterator[IO[bytes]]:
    """Give a file that takes its place only when it is whole."""
    if place == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(place).resolve()  # what a link points to is written, and the link stays
    if path.exists() and not path.is_file():
        with path.open("wb") as file:  # a device or a pipe is written to, not replaced
            yield file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".granule-", delete=False) as draft:
        try:
            yield draft
            draft.flush()
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(draft.fileno(), 0o666 & ~umask)
            os.replace(draft.name, path)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            raise
