"""Finished pixels to the bytes of a picture file that says how it was made.

Every format carries the parameters as one JSON object: PNG in a text chunk with the key `parameters` (tEXt, or iTXt where
they are not Latin-1), JPEG and WebP in EXIF UserComment (EXIF 2.32, 4.6.5) with the ASCII mark.

The effort of each encoder was chosen on tiles of 1024 x 1024, one that mini drew and one that is painted (`python -m
bench.encoding`; one core; ms and MB):

    PNG level           1: 73, 1.58 (painted 1.86)    4: 257, 1.37 (1.90)    6 (Pillow's default): 682, 1.36 (1.84)
    PNG, run lengths    57, 1.37 (1.96)
    WebP method         0: 73, 0.45    2: 94, 0.45     4 (Pillow's default): 172, 0.45    (quality 95, painted)
    JPEG                5, 0.75 at quality 95

Grain never repeats, so a search for repetitions takes long and finds nothing: PNG is written with run lengths alone, twelve
times as fast as the default for one percent more bytes of a drawn tile.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from shared.jobs import OutputFormat

THUMBNAIL_PX = 384
THUMBNAIL_QUALITY = 70
"""A page of tiles shows them half as large, on screens with two pixels for one. A tile is then 45 KB instead of 1.4 MB."""

PNG_COMPRESS_LEVEL = 1  # without a search for repetitions the level changes nothing
WEBP_METHOD = 2
PARAMETERS_KEY = "parameters"
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
ASCII_MARK = b"ASCII\0\0\0"

CONTENT_TYPES: Mapping[OutputFormat, str] = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """The bytes of a picture file, its media type, and the extension of its name without a dot."""

    data: bytes
    content_type: str
    extension: str


def encode(
    pixels: NDArray[np.uint8], *, output_format: OutputFormat, output_quality: int, parameters: Mapping[str, Any]
) -> Encoded:
    """Encode sRGB `pixels` (height x width x 3) with `parameters`, any mapping that JSON can hold.

    `output_quality` is 1 to 100 and counts for jpg and webp; png is lossless whatever it says. The same input gives the
    same bytes.
    """
    picture = Image.fromarray(pixels)
    file = io.BytesIO()
    match output_format:
        case "png":
            text = PngInfo()
            text.add_text(PARAMETERS_KEY, json.dumps(parameters, ensure_ascii=False))
            picture.save(file, "PNG", compress_level=PNG_COMPRESS_LEVEL, compress_type=zlib.Z_RLE, pnginfo=text)
        case "jpg":
            # Full colour resolution: halving it smears the edges between granules.
            picture.save(file, "JPEG", quality=output_quality, subsampling="4:4:4", exif=_exif(parameters))
        case "webp":
            picture.save(file, "WEBP", quality=output_quality, method=WEBP_METHOD, exif=_exif(parameters))
    return Encoded(file.getvalue(), CONTENT_TYPES[output_format], output_format)


def encode_small(pixels: NDArray[np.uint8], *, side_px: int = THUMBNAIL_PX, quality: int = THUMBNAIL_QUALITY) -> Encoded:
    """Encode sRGB `pixels` (height x width x 3) as WebP, made smaller until no side is longer than `side_px`."""
    picture, file = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS, reducing_gap=2.0)
    picture.save(file, "WEBP", quality=quality, method=WEBP_METHOD)
    return Encoded(file.getvalue(), CONTENT_TYPES["webp"], "webp")


def _exif(parameters: Mapping[str, Any]) -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = ASCII_MARK + json.dumps(parameters).encode("ascii")
    return exif
