from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from worker.images import ASCII_MARK, EXIF_IFD, USER_COMMENT, Encoded, OutputFormat, encode, encode_small

PARAMETERS: dict[str, Any] = {
    "prompt": "50% red, 50% жемчужный",
    "seed": 4294967295,
    "guidance_scale": 7.0,
    "model": "granule/rubber-tile-mini",
}
FORMATS: list[OutputFormat] = ["png", "jpg", "webp"]


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """Blocks of 8 x 8 pixels in random colours, 64 high and 96 wide."""
    blocks = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return np.repeat(np.repeat(blocks, 8, axis=0), 8, axis=1)


def save(pixels: NDArray[np.uint8], output_format: OutputFormat, output_quality: int = 95, **parameters: Any) -> Encoded:
    return encode(pixels, output_format=output_format, output_quality=output_quality, parameters=parameters or PARAMETERS)


def parameters_of(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as picture:
        if "parameters" in picture.info:
            return json.loads(picture.info["parameters"])
        comment = picture.getexif().get_ifd(EXIF_IFD)[USER_COMMENT]
        assert comment.startswith(ASCII_MARK)
        return json.loads(comment[len(ASCII_MARK) :])


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


@pytest.mark.parametrize(
    ("output_format", "content_type", "kind"),
    [("png", "image/png", "PNG"), ("jpg", "image/jpeg", "JPEG"), ("webp", "image/webp", "WEBP")],
)
def test_the_file_is_what_its_type_says(
    pixels: NDArray[np.uint8], output_format: OutputFormat, content_type: str, kind: str
) -> None:
    encoded = save(pixels, output_format)
    assert (encoded.content_type, encoded.extension) == (content_type, output_format)
    with Image.open(io.BytesIO(encoded.data)) as picture:
        assert (picture.format, picture.size) == (kind, (96, 64))


def test_png_keeps_every_pixel_whatever_the_quality(pixels: NDArray[np.uint8]) -> None:
    assert np.array_equal(pixels_of(save(pixels, "png", 1).data), pixels)


@pytest.mark.parametrize("output_format", ["jpg", "webp"])
def test_quality_trades_bytes_for_nearness(pixels: NDArray[np.uint8], output_format: OutputFormat) -> None:
    low, high = (save(pixels, output_format, quality).data for quality in (10, 95))
    errors = [np.abs(pixels_of(data).astype(int) - pixels).mean() for data in (low, high)]
    assert len(low) < len(high)
    assert errors[1] < errors[0] and errors[1] < 12


def test_a_small_version_keeps_the_proportions_and_never_grows(pixels: NDArray[np.uint8]) -> None:
    for side_px, size in ((48, (48, 32)), (384, (96, 64))):
        with Image.open(io.BytesIO(encode_small(pixels, side_px=side_px).data)) as picture:
            assert (picture.format, picture.size) == ("WEBP", size)


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_file_carries_its_parameters(pixels: NDArray[np.uint8], output_format: OutputFormat) -> None:
    assert parameters_of(save(pixels, output_format).data) == PARAMETERS
    assert parameters_of(save(pixels, output_format, prompt="x" * 20_000).data) == {"prompt": "x" * 20_000}


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_same_picture_gives_the_same_bytes(pixels: NDArray[np.uint8], output_format: OutputFormat) -> None:
    assert save(pixels, output_format).data == save(pixels, output_format).data
