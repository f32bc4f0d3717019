from __future__ import annotations

import numpy as np
import pytest

from worker.colorimetry import ciede2000, linear_to_oklab, srgb_to_cielab

# Test data published with the formula: Sharma, Wu and Dalal, "The CIEDE2000 color-difference formula", 2005, table 1.
PUBLISHED = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, 2.8361, -74.0200), (50.0, 0.0, -82.7485), 3.4412),
    ((50.0, -1.1848, -84.8006), (50.0, 0.0, -82.7485), 1.0000),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0009), 7.1792),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0011), 7.2195),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((50.0, 2.5, 0.0), (61.0, -5.0, 29.0), 22.8977),
    ((50.0, 2.5, 0.0), (56.0, -27.0, -3.0), 31.9030),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((36.4612, 47.8580, 18.3852), (36.2715, 50.5065, 21.2231), 1.4146),
    ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("lab", "other", "expected"), PUBLISHED)
def test_ciede2000_gives_the_published_values(lab: tuple[float, ...], other: tuple[float, ...], expected: float) -> None:
    assert ciede2000(np.array(lab), np.array(other)) == pytest.approx(expected, abs=5e-5)
    assert ciede2000(np.array(other), np.array(lab)) == pytest.approx(expected, abs=5e-5)
    assert ciede2000(np.array(lab), np.array(lab)) == 0


def test_cielab_of_known_colours() -> None:
    srgb = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [119, 119, 119]], np.float64)
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [50.03, 0, 0]]
    assert srgb_to_cielab(srgb) == pytest.approx(np.array(expected), abs=0.02)


def test_oklab_of_known_colours() -> None:
    linear = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0]], np.float32)
    expected = [[1, 0, 0], [0, 0, 0], [0.6280, 0.2249, 0.1258]]
    assert linear_to_oklab(linear) == pytest.approx(np.array(expected), abs=5e-4)


def test_less_light_moves_a_colour_along_its_line_in_oklab() -> None:
    linear = np.array([0.58, 0.07, 0.05], np.float32)
    lit, shaded = linear_to_oklab(linear), linear_to_oklab(linear * 0.3)
    assert shaded / shaded[0] == pytest.approx(lit / lit[0], abs=1e-5)
