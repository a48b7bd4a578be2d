"""Metal in the beam: wires and screws as chains of radiative Gaussians."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from radgs.gaussians import RadiativeGaussians

# Line integral across the middle at 70 keV: steel wire of 1.5 to 2.5 mm, titanium screw of 5 to 7 mm (NIST XCOM).
_STEEL_MU, _TITANIUM_MU = 0.6, 0.25
_SPACING = 1.5  # standard deviations along the axis between links


def rod(start: NDArray[np.float64], end: NDArray[np.float64], radius_mm: float, mu: float) -> RadiativeGaussians:
    """A straight rod.

    Args:
        start: ``[3]`` mm.
        end: ``[3]`` mm.
        radius_mm: half its thickness.
        mu: attenuation, 1/mm; the line integral across its middle is ``2 * radius_mm * mu``.
    """
    axis = end - start
    length = float(np.linalg.norm(axis))
    links = max(int(length / (1.5 * radius_mm)), 2)
    along, across = length / links / _SPACING * 1.25, 0.6 * radius_mm
    places = (np.arange(links) + 0.5) / links
    direction = axis / length
    # the shortest turn from x to the rod's direction, as a quaternion (w, x, y, z)
    half = np.array([1 + direction[0], 0, -direction[2], direction[1]])
    quaternion = half / np.linalg.norm(half) if direction[0] > -0.999 else np.array([0.0, 0, 0, 1])
    sums_along = np.sqrt(2 * np.pi) * along / (length / links)
    density = 2 * radius_mm * mu / (np.sqrt(2 * np.pi) * across * sums_along)
    return RadiativeGaussians(
        torch.from_numpy(start + places[:, None] * axis).float(),
        torch.tensor([[along, across, across]]).repeat(links, 1).float(),
        torch.from_numpy(quaternion).float().repeat(links, 1),
        torch.full((links,), density),
    )


def sample_instruments(rng: np.random.Generator, centre: NDArray[np.float64], most: int) -> RadiativeGaussians | None:
    """Up to ``most`` wires and screws within 90 mm of ``centre`` (world, mm); half of all scenes have none."""
    count = int(rng.integers(1, most + 1)) if most and rng.random() < 0.5 else 0
    parts = []
    for _ in range(count):
        middle, direction = centre + rng.uniform(-60, 60, 3), rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        wire = rng.random() < 0.5
        reach = rng.uniform(40, 110) if wire else rng.uniform(18, 28)
        radius = rng.uniform(0.75, 1.25) if wire else rng.uniform(2.5, 3.5)
        parts.append(
            rod(middle - reach * direction, middle + reach * direction, radius, _STEEL_MU if wire else _TITANIUM_MU)
        )
    if not parts:
        return None
    fields = ("means", "scales", "quaternions", "densities")
    return RadiativeGaussians(*(torch.cat([getattr(p, name) for p in parts]) for name in fields))
