"""Where a collimator lets the beam through."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from radgs.anatomy.canvas import canvas_camera, canvas_to_image
from radgs.geometry import Camera

_COLLIMATED = 0.25  # of all images
_WIDTH = (0.4, 1.0)  # of the opening, of the image's side; each direction of its own
_TURNED_DEG = 10.0
_ROUNDED = 0.3  # of the openings; the radius of their corners goes up to half of their width, a circle


def opening(
    u: NDArray[np.float64],
    v: NDArray[np.float64],
    centre: tuple[float, float],
    width: float,
    height: float,
    turn: float = 0.0,
    radius: float = 0.0,
) -> NDArray[np.bool_]:
    """The pixels (u, v) in a rectangle with rounded corners.

    Args:
        u: of any shape.
        v: likewise.
        centre: (u, v).
        width: along u before it is turned.
        height: along v before it is turned.
        turn: radians.
        radius: of the corners.
    """
    x, y = u - centre[0], v - centre[1]
    across, along = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    dx, dy = np.abs(across) - width / 2 + radius, np.abs(along) - height / 2 + radius
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) <= radius


def sample_opening(rng: np.random.Generator, camera: Camera, pixels: int) -> NDArray[np.bool_]:
    """What a random collimator leaves of the image on the detector's canvas, ``[pixels, pixels]``; often all."""
    if rng.random() > _COLLIMATED:
        return np.ones((pixels, pixels), dtype=bool)
    canvas = canvas_camera(camera, pixels)
    grid = np.stack(np.meshgrid(np.arange(pixels), np.arange(pixels)), axis=-1)
    u, v = np.moveaxis(canvas_to_image(camera, grid, canvas), -1, 0)
    size = rng.uniform(*_WIDTH, 2) * [camera.width, camera.height]
    spare = [camera.width, camera.height] - size
    centre = size / 2 + rng.uniform(0, 1, 2) * spare - 0.5
    turn = math.radians(rng.uniform(-1, 1) * _TURNED_DEG) if rng.random() < 0.5 else 0.0
    radius = rng.uniform(0, 0.5) * size.min() if rng.random() < _ROUNDED else 0.0
    return opening(u, v, (float(centre[0]), float(centre[1])), float(size[0]), float(size[1]), turn, radius)
