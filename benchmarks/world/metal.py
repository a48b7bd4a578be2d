"""Screws and K-wires: cylinders, whose lengths along every ray are known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radgs.geometry import Camera, RigidTransform, rays

_NEAR_MM = 15.0  # wires pass a vertebra's middle within this


@dataclass(frozen=True)
class Cylinder:
    """A straight round rod from ``start`` to ``end`` (``[3]`` mm)."""

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    radius_mm: float
    material: str

    def moved(self, a_from_b: RigidTransform) -> Cylinder:
        """The same elsewhere."""
        return Cylinder(a_from_b.apply(self.start), a_from_b.apply(self.end), self.radius_mm, self.material)

    def lengths(self, camera: Camera) -> NDArray[np.float64]:
        """Length of each pixel's ray inside, mm, ``[H, W]``; the cylinder is in the camera's world."""
        source, targets = rays(camera)
        along = targets - source
        along /= np.linalg.norm(along, axis=-1, keepdims=True)
        axis = self.end - self.start
        height = float(np.linalg.norm(axis))
        axis = axis / height
        entry, leave = _between_planes(along @ axis, (source - self.start) @ axis, height)
        offset = source - self.start
        offset = offset - (offset @ axis) * axis
        across = along - (along @ axis)[..., None] * axis
        a, b, c = (across**2).sum(-1), across @ offset, offset @ offset - self.radius_mm**2
        root = b**2 - a * c
        half = np.sqrt(np.maximum(root, 0)) / np.maximum(a, 1e-12)
        middle = -b / np.maximum(a, 1e-12)
        inside = np.minimum(leave, middle + half) - np.maximum(entry, middle - half)
        return np.where(root > 0, np.maximum(inside, 0), 0)


def _between_planes(slope: NDArray, start: float, height: float) -> tuple[NDArray, NDArray]:
    """Where ``start + t slope`` lies between 0 and ``height``."""
    slope = np.where(np.abs(slope) < 1e-9, 1e-9, slope)
    ends = np.stack([-start / slope, (height - start) / slope])
    return ends.min(axis=0), ends.max(axis=0)


def pedicle_screws(centre: NDArray[np.float64]) -> list[Cylinder]:
    """A pair of titanium screws with heads through the pedicles of the vertebra at ``centre`` (LPS mm, CT)."""
    parts = []
    for side in (-1, 1):
        tip, neck = centre + np.array([[side * 6.0, -18.0, -2.0], [side * 17.0, 26.0, 4.0]])
        head = neck + 12.0 * (neck - tip) / np.linalg.norm(neck - tip)
        parts += [Cylinder(tip, neck, 2.75, "titanium"), Cylinder(neck, head, 6.0, "titanium")]
    return parts


def wire(rng: np.random.Generator, centre: NDArray[np.float64]) -> Cylinder:
    """A steel K-wire of random direction that passes near ``centre`` (mm) and sticks out of the body."""
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    middle = centre + rng.uniform(-_NEAR_MM, _NEAR_MM, 3)
    reach = rng.uniform(40, 120, 2)
    return Cylinder(
        middle - reach[0] * direction, middle + reach[1] * direction, float(rng.uniform(0.75, 1.25)), "steel"
    )
