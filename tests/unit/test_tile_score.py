from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from shared.palette import load_palette
from worker.composition import ColorShare
from worker.legend import WIDTH_PX, draw_legend
from worker.painter import paint_tile
from worker.tile_score import seam_score, tile_score

COLORS = load_palette().colors


def paint(granule_px: float = 17.0, *, seamless: bool = False, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    shares = [(COLORS[seed], 60.0), (COLORS[seed + 9], 40.0)]
    return paint_tile(shares, rng=rng, size_px=512, granule_px=granule_px, seamless=seamless).pixels


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_a_painted_tile_is_one_sharp_or_soft(seed: int) -> None:
    soft = ndimage.gaussian_filter(paint(seed=seed).astype(np.float32), (0.7, 0.7, 0)).astype(np.uint8)
    assert tile_score(paint(seed=seed)) > 0.9
    assert tile_score(soft) > 0.6


def lattice() -> NDArray[np.uint8]:
    y, x = np.mgrid[:512, :512]
    lines = np.minimum(np.abs((x + y) % 24 - 12), np.abs((x - y) % 24 - 12))
    return np.repeat(np.where(lines < 2, 60, 180).astype(np.uint8)[..., None], 3, axis=2)


def plain() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(118, 130, (512, 512, 3), dtype=np.uint8)


def room() -> NDArray[np.uint8]:
    picture = np.full((512, 512, 3), 200, np.uint8)
    for left, top, side, level in ((30, 60, 200, 90), (280, 40, 160, 40), (100, 300, 320, 140), (320, 330, 60, 230)):
        picture[top : top + side, left : left + side] = level
    return picture


@pytest.mark.parametrize("picture", [paint(100.0), lattice(), plain(), room()], ids=["cracks", "lattice", "plain", "room"])
def test_anything_else_is_none(picture: NDArray[np.uint8]) -> None:
    assert tile_score(picture) < 0.05


@pytest.mark.parametrize("shape", [(8, 8), (64, 64), (64, 512), (512, 64)])
def test_small_and_narrow_pictures_get_a_score(shape: tuple[int, int]) -> None:
    assert 0 <= tile_score(np.zeros((*shape, 3), np.uint8)) <= 1


@pytest.mark.parametrize("seed", range(4))
def test_the_edges_of_a_seamless_tile_meet_and_those_of_another_do_not(seed: int) -> None:
    assert 0.9 < seam_score(paint(seamless=True, seed=seed)) < 1.2
    assert seam_score(paint(seed=seed)) > 2


@pytest.mark.parametrize("seed", range(4))
def test_the_edges_of_a_seamless_tile_are_as_good_as_any_other_lines(seed: int) -> None:
    tile = paint(seamless=True, seed=seed)
    assert seam_score(tile) == pytest.approx(seam_score(np.roll(tile, (256, 256), (0, 1))), abs=0.15)


def test_faint_seams_show() -> None:
    tile = paint(seamless=True)
    shifted = tile.copy()
    shifted[:256] = np.roll(tile[:256], 2, axis=1)
    darker_upwards = (tile * np.linspace(0.9, 1, 512)[:, None, None]).astype(np.uint8)
    assert min(seam_score(shifted), seam_score(darker_upwards)) > 1.25


def test_a_seam_in_one_direction_is_enough() -> None:
    tile = paint(seamless=True)
    assert seam_score(tile[: 512 - 64]) > 2
    assert seam_score(tile[:, : 512 - 64]) > 2


def test_a_plain_picture_has_no_seam() -> None:
    assert seam_score(np.full((64, 64, 3), 90, np.uint8)) == pytest.approx(1)


def test_a_legend_has_a_row_for_each_colour_with_both_swatches() -> None:
    parts = [ColorShare("red", 60.0, 58.5, 1.0, "#FF0000", "#EE1111"), ColorShare("blue", 40.0, 40.9, None, "#0000FF", None)]
    other = ColorShare("other", 0.0, 0.6)
    legend = draw_legend([*parts, other])
    assert legend.shape[1:] == (WIDTH_PX, 3) and legend.dtype == np.uint8
    colors = {tuple(color) for color in legend.reshape(-1, 3).tolist()}
    assert {(255, 0, 0), (238, 17, 17), (0, 0, 255)} <= colors
    assert draw_legend([*parts, ColorShare("other", 0.0, 5.0)]).shape[0] > legend.shape[0]
