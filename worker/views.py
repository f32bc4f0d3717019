"""Shows a seamless tile as it lies on a floor, seen by a camera at an angle.

Plain projection, no model: a pinhole camera looks at a plane of repeated tiles. It is tilted but not rolled, so each line of
the picture lies at one distance, and what a pixel sees of the floor is a rectangle but for a part too small to matter. The
mean over that rectangle is taken exactly, with sums over the whole tile prepared once (F. Crow, "Summed-area tables for
texture mapping", SIGGRAPH 1984): nothing flickers or beats however far away it is. Light is averaged, not sRGB levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.painter import to_linear, to_srgb

Doubles = NDArray[np.float64]

HALF_FIELD_DEG = 18.0
"""Half of what the camera sees, from side to side; of a 35 mm camera's lenses about that of 55 mm."""
TILES_ACROSS = 2.0
"""How many tiles stand side by side in the middle of the picture, whatever the angle."""
LAMP_HEIGHT = 1.2
"""Height of the lamp above the middle of the picture, in distances from there to the camera."""
AMBIENT = 0.6
"""Part of the light in the middle that comes from everywhere and does not fall off."""
GROUT_WIDTH = 0.012
"""Width of a joint as part of a tile's: 6 mm of 50 cm."""
GROUT_LINEAR = 0.12
"""Reflectance of a joint."""


@dataclass(frozen=True, slots=True)
class Camera:
    """Looks at a floor whose unit of length is the width of a tile, its x to the right and its y away from the viewer.

    `angle_deg` is the angle from straight above. The origin lies under the camera; the middle of the picture is at `reach`.
    """

    angle_deg: float

    @property
    def distance(self) -> float:
        """From the camera to the floor in the middle of the picture."""
        return TILES_ACROSS / 2 / math.tan(math.radians(HALF_FIELD_DEG))

    @property
    def reach(self) -> float:
        """From under the camera to the middle of the picture, along the floor."""
        return self.distance * math.sin(math.radians(self.angle_deg))

    def rows(self, up: Doubles) -> tuple[Doubles, Doubles]:
        """Return for heights in the picture, as tangents above its middle: y on the floor, and x for each tangent sideways."""
        angle = math.radians(self.angle_deg)
        depth = self.distance * math.cos(angle) / (math.cos(angle) - up * math.sin(angle))
        return depth * (math.sin(angle) + up * math.cos(angle)), depth


def view_floor(tile: NDArray[np.uint8], angle_deg: float, *, grout: bool = False) -> NDArray[np.uint8]:
    """Return a picture of the tile's size (sRGB, height x width x 3) of a floor of such tiles at an angle of 0 to 60 degrees.

    The tile should be seamless. With `grout` it has dark joints on all sides.
    """
    height, width = tile.shape[:2]
    linear = to_linear(tile.astype(np.float32)).astype(np.float64)
    if grout:
        _lay_joints(linear)
    camera, tangent = Camera(angle_deg), math.tan(math.radians(HALF_FIELD_DEG))
    up = np.linspace(1, -1, height + 1) * tangent * height / width
    sideways = np.linspace(-1, 1, width + 1) * tangent
    y, _ = camera.rows(up)
    middle_y, depth = camera.rows((up[:-1] + up[1:]) / 2)
    columns = _summed(linear.reshape(height, width * 3))
    picture = np.empty_like(linear)
    for row in range(height):
        # The floor's y grows away from the viewer, the tile's rows towards him.
        far, near = (-y[row] * width, -y[row + 1] * width)
        line = _mean(columns, np.array([far, near])).reshape(width, 3)
        picture[row] = _mean(_summed(line), sideways * depth[row] * width)
    lit = picture * _light(camera, sideways, middle_y, depth)[..., None]
    return to_srgb(lit.astype(np.float32))


def _summed(values: Doubles) -> Doubles:
    """Return the sums over the first 0, 1, 2 ... rows."""
    return np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])


def _mean(sums: Doubles, edges: Doubles) -> Doubles:
    """Return the means between neighbouring `edges` (any real numbers) of rows that repeat for ever."""
    period = len(sums) - 1
    turns, rest = np.divmod(edges, period)
    whole = np.minimum(rest.astype(np.int64), period - 1)
    part = (rest - whole)[:, None]
    reached = turns[:, None] * sums[-1] + (1 - part) * sums[whole] + part * sums[whole + 1]
    return np.asarray(np.diff(reached, axis=0) / np.diff(edges)[:, None])


def _light(camera: Camera, sideways: Doubles, y: Doubles, depth: Doubles) -> Doubles:
    """Return the light on each pixel's floor, 1 under the lamp: inverse square of the distance, times the cosine."""
    x = (sideways[:-1] + sideways[1:]) / 2 * depth[:, None]
    height = LAMP_HEIGHT * camera.distance
    away = (x**2 + (y - camera.reach)[:, None] ** 2) / height**2
    return np.asarray(AMBIENT + (1 - AMBIENT) * (1 + away) ** -1.5)


def _lay_joints(linear: Doubles) -> None:
    half_px = max(1, round(GROUT_WIDTH * linear.shape[1] / 2))
    for edge in (slice(None, half_px), slice(-half_px, None)):
        linear[edge] = GROUT_LINEAR
        linear[:, edge] = GROUT_LINEAR
