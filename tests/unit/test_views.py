from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.palette import load_palette
from worker.painter import paint_tile, to_linear
from worker.views import Camera, view_floor

PALETTE = load_palette()


def tile(size_px: int = 256) -> NDArray[np.uint8]:
    shares = [(PALETTE.colors[0], 50.0), (PALETTE.colors[2], 50.0)]
    return paint_tile(shares, rng=np.random.default_rng(0), size_px=size_px, granule_px=16, seamless=True).pixels


def light(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return to_linear(pixels.astype(np.float32))


@pytest.mark.parametrize("angle", [1, 30, 60])
def test_the_middle_of_the_view_shows_the_tiles_own_colour(angle: int) -> None:
    picture = light(view_floor(tile(), angle))
    middle = picture[96:160, 96:160].mean(axis=(0, 1))
    assert middle == pytest.approx(light(tile()).mean(axis=(0, 1)), rel=0.12)


def test_a_plain_floor_has_no_texture_and_grows_darker_away_from_the_lamp() -> None:
    grey = np.full((128, 128, 3), 128, np.uint8)
    picture = light(view_floor(grey, 60))[..., 0]
    assert picture[64, 64] == pytest.approx(light(grey)[0, 0, 0], rel=0.02)
    assert (np.diff(picture[:60, 64]) >= -1e-6).all()
    assert 0.5 < picture[0, 64] / picture[64, 64] < 0.9
    assert np.allclose(picture, picture[:, ::-1], atol=0.01)


def test_what_is_far_away_is_averaged_and_does_not_beat() -> None:
    checks = np.kron(np.indices((64, 64)).sum(axis=0) % 2, np.ones((4, 4)))[..., None].repeat(3, axis=2)
    picture = light(view_floor((255 * checks).astype(np.uint8), 60))[..., 0]
    near, far = picture[-40:].std(), (picture[:12] / picture[:12].mean(axis=1, keepdims=True)).std()
    assert near > 0.15
    assert far < 0.06


def test_the_view_repeats_with_the_tile() -> None:
    picture = tile()
    shifted = np.roll(picture, (64, 32), (0, 1))
    assert not np.array_equal(view_floor(picture, 30), view_floor(shifted, 30))
    laid = np.tile(picture, (2, 2, 1))
    # Four tiles taken for one are seen at half their size; the floor is the same one.
    assert light(view_floor(laid, 30)).mean() == pytest.approx(light(view_floor(picture, 30)).mean(), rel=0.03)


def test_the_camera_looks_where_it_says() -> None:
    camera = Camera(30)
    y, depth = camera.rows(np.array([0.0]))
    assert y[0] == pytest.approx(camera.reach)
    assert depth[0] == pytest.approx(camera.distance)


def test_joints_lie_between_the_tiles() -> None:
    white = np.full((256, 256, 3), 255, np.uint8)
    assert view_floor(white, 30).min() > 150
    with_joints = view_floor(white, 30, grout=True)
    assert with_joints.min() < 130
    assert (with_joints[..., 0] < 150).mean() < 0.05
