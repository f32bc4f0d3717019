"""Describes a texture in numbers: its power spectrum, whether it repeats, whether the decoder's 8 x 8 grid shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

_BANDS = 24
_GRID_PX = 8


def luminance(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the Rec. 709 luma of sRGB bytes [size, size, 3], mean 0 and standard deviation 1."""
    luma = pixels @ np.array([0.2126, 0.7152, 0.0722])
    return np.asarray((luma - luma.mean()) / max(float(luma.std()), 1e-6))


def radial_spectrum(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean power in decibels of 24 rings of frequency, evenly spaced in log from 4 cycles a picture to Nyquist."""
    plane = luminance(pixels)
    side = plane.shape[0]
    window = np.hanning(side)
    power = np.abs(fft.fft2(plane * window[:, None] * window[None, :])) ** 2
    frequency = np.hypot(fft.fftfreq(side)[:, None], fft.fftfreq(side)[None, :]) * side
    edges = np.geomspace(4, side / 2, _BANDS + 1)
    ring = np.digitize(frequency, edges).ravel()
    sums = np.bincount(ring, power.ravel(), _BANDS + 2)[1:-1]
    return np.asarray(10 * np.log10(sums / np.bincount(ring, minlength=_BANDS + 2)[1:-1] + 1e-12))


def spectrum_distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the root mean square difference of two radial spectra in decibels."""
    return float(np.sqrt(np.mean((one - other) ** 2)))


def repetition(pixels: NDArray[np.uint8], nearest_px: int = 96) -> float:
    """Return the highest autocorrelation at any shift of `nearest_px` or more: 1 for a picture that repeats itself."""
    plane = luminance(pixels)
    correlation = fft.ifft2(np.abs(fft.fft2(plane)) ** 2).real / plane.size
    side = plane.shape[0]
    shift = np.minimum(np.arange(side), side - np.arange(side))
    far = np.hypot(shift[:, None], shift[None, :]) >= nearest_px
    return float(correlation[far].max())


def grid_excess(pixels: NDArray[np.uint8]) -> float:
    """Return how many decibels the multiples of 1/8 cycle a pixel stand above their neighbours; about 0 without a grid."""
    plane = luminance(pixels)
    side = plane.shape[0]
    excess = []
    for axis in (0, 1):
        power = (np.abs(fft.rfft(plane, axis=axis)) ** 2).mean(axis=1 - axis)
        for multiple in range(1, _GRID_PX // 2):
            line = multiple * side // _GRID_PX
            around = np.r_[power[line - 6 : line - 1], power[line + 2 : line + 7]]
            excess.append(10 * np.log10(power[line] / around.mean()))
    return float(np.mean(excess))
