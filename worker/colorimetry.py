"""Colour spaces and colour difference, from their published formulas; float arrays in, float arrays out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.painter import to_linear

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

# B. Ottosson, "A perceptual color space for image processing", 2020: linear sRGB to cone response, its cube root to Lab.
_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    np.float32,
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    np.float32,
)
# IEC 61966-2-1: linear sRGB to XYZ, and the XYZ of its white (D65).
_TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
_WHITE_XYZ = _TO_XYZ.sum(axis=1)


def linear_to_oklab(linear: Floats) -> Floats:
    """Turn linear sRGB of 0 to 1 (... x 3) into OKLab: L of 0 to 1, a and b of about -0.3 to 0.3."""
    return np.asarray(np.cbrt(linear @ _TO_LMS.T) @ _TO_OKLAB.T, np.float32)


def srgb_to_cielab(srgb: Doubles) -> Doubles:
    """Turn sRGB of 0 to 255 (... x 3) into CIELAB under D65: L of 0 to 100."""
    relative = to_linear(np.asarray(srgb, np.float32)).astype(np.float64) @ _TO_XYZ.T / _WHITE_XYZ
    root = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(lab: Doubles, other: Doubles) -> Doubles:
    """Return the CIEDE2000 difference of CIELAB colours (... x 3), after Sharma, Wu and Dalal 2005; about 1 is just visible."""
    mean_chroma = (np.hypot(lab[..., 1], lab[..., 2]) + np.hypot(other[..., 1], other[..., 2])) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25.0**7))
    chroma, hue = _polar(lab[..., 1] * stretch, lab[..., 2])
    other_chroma, other_hue = _polar(other[..., 1] * stretch, other[..., 2])
    turn = (other_hue - hue + 180) % 360 - 180
    grey = chroma * other_chroma == 0
    turn = np.where(grey, 0.0, turn)
    d_lightness, d_chroma = other[..., 0] - lab[..., 0], other_chroma - chroma
    d_hue = 2 * np.sqrt(chroma * other_chroma) * np.sin(np.radians(turn / 2))
    lightness, chroma = (lab[..., 0] + other[..., 0]) / 2, (chroma + other_chroma) / 2
    hue = np.where(grey, hue + other_hue, (hue + turn / 2) % 360)
    weight = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    from_50 = (lightness - 50) ** 2
    lightness_part = d_lightness / (1 + 0.015 * from_50 / np.sqrt(20 + from_50))
    chroma_part = d_chroma / (1 + 0.045 * chroma)
    hue_part = d_hue / (1 + 0.015 * chroma * weight)
    blue_turn = np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2)))
    rotation = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * np.sin(blue_turn)
    return np.asarray(np.sqrt(lightness_part**2 + chroma_part**2 + hue_part**2 + rotation * chroma_part * hue_part))


def _polar(a: Doubles, b: Doubles) -> tuple[Doubles, Doubles]:
    """Return chroma and hue in degrees, 0 to 360."""
    return np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360
