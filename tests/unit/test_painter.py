import time

import numpy as np
import pytest

from shared.errors import InputInvalid
from shared.palette import Color, Palette, load_palette
from worker.colorimetry import ciede2000, srgb_to_cielab
from worker.painter import GAP, Light, PaintedTile, cut_granules, light_granules, paint_tile

SIZE_PX = 512


@pytest.fixture(scope="module")
def palette() -> Palette:
    return load_palette()


def named(palette: Palette, **shares: float) -> list[tuple[Color, float]]:
    found = [(palette.find(name), share) for name, share in shares.items()]
    return [(color, share) for color, share in found if color is not None]


def visible_shares(tile: PaintedTile, colors: int) -> list[float]:
    faces = tile.labels[tile.labels != GAP]
    return [float((faces == index).mean()) for index in range(colors)]


@pytest.mark.parametrize("weights", [(50, 30, 20), (95, 5), (1, 99), (0.25, 0.25, 0.25, 0.25), (1, 1, 1, 1, 1)])
def test_visible_shares_are_the_ordered_ones(palette: Palette, weights: tuple[float, ...]) -> None:
    mix = list(zip(palette.colors, weights, strict=False))
    tile = paint_tile(mix, rng=np.random.default_rng(1), size_px=SIZE_PX)
    ordered = [weight / sum(weights) for weight in weights]
    assert visible_shares(tile, len(weights)) == pytest.approx(ordered, abs=0.003)


def test_every_color_keeps_its_swatch_as_median(palette: Palette) -> None:
    for number, color in enumerate(palette.colors):
        tile = paint_tile([(color, 1)], rng=np.random.default_rng(number), size_px=256)
        median = np.median(tile.pixels[tile.labels == 0], axis=0)
        assert ciede2000(srgb_to_cielab(median), srgb_to_cielab(np.array(color.srgb, float))) < 2, color.name


def test_the_same_state_paints_the_same_bytes_and_another_does_not(palette: Palette) -> None:
    mix = named(palette, red=1, black=1)
    first, again, other = (paint_tile(mix, rng=np.random.default_rng(seed), size_px=256).pixels for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def seam(pixels: np.ndarray) -> float:
    """How much more the wrapped edge differs than neighbouring rows do inside."""
    plane = pixels.astype(float).mean(2)
    inside = np.abs(np.diff(plane, axis=0)).mean()
    return float(np.abs(plane[0] - plane[-1]).mean() / inside)


def test_a_seamless_tile_continues_itself_and_an_open_one_does_not(palette: Palette) -> None:
    mix = named(palette, white=1, blue=1)
    seamless = paint_tile(mix, rng=np.random.default_rng(3), size_px=SIZE_PX, seamless=True).pixels
    open_edged = paint_tile(mix, rng=np.random.default_rng(3), size_px=SIZE_PX).pixels
    for pixels in (seamless, seamless.transpose(1, 0, 2)):
        assert seam(pixels) < 1.4
    assert seam(open_edged) > 2


def test_granules_are_as_wide_as_asked() -> None:
    for granule_px in (16, 34, 64):
        cut = cut_granules(SIZE_PX, granule_px, np.random.default_rng(0), periodic=True)
        assert np.sqrt(SIZE_PX**2 / cut.count) == pytest.approx(granule_px, rel=0.1)


def test_the_lamp_decides_which_side_is_lit() -> None:
    cut = cut_granules(SIZE_PX, 40, np.random.default_rng(0))
    right, left = (light_granules(cut, Light(azimuth_deg=angle), np.random.default_rng(1)).shade for angle in (0, 180))
    east = cut.offset_x_px > 10
    assert right[east].mean() > left[east].mean() + 0.05
    assert np.median(right[cut.edge_px > 3]) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("weights", "options", "field"),
    [
        ([], {}, "shares"),
        ([1.0, 0.0], {}, "shares"),
        ([1.0, float("nan")], {}, "shares"),
        ([1.0], {"granule_px": 200.0}, "granule_px"),
        ([1.0], {"size_px": 8}, "size_px"),
    ],
)
def test_what_cannot_be_painted_is_refused_by_name(palette: Palette, weights: list[float], options: dict, field: str) -> None:
    mix = list(zip(palette.colors, weights, strict=False))
    with pytest.raises(InputInvalid) as refused:
        paint_tile(mix, rng=np.random.default_rng(0), **{"size_px": 256, **options})
    assert refused.value.field == field


def test_a_full_size_tile_takes_well_under_two_seconds_of_one_core(palette: Palette) -> None:
    started = time.process_time()
    paint_tile(named(palette, red=50, black=30, pearl=20), rng=np.random.default_rng(0))
    assert time.process_time() - started < 2
