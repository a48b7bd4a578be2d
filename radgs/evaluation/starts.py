"""Starting positions for registration: from how far away does a method still find the truth?

The same seed gives the same starts for every vertebra, every shot and every method, so that methods compare.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.spatial.transform import Rotation

from radgs.errors import RadgsError
from radgs.geometry import RigidTransform

# Standard deviations (left, posterior, superior) of the voxels of T10 to L1 in the demo's CT, rounded.
_SPREAD_MM = (11.0, 15.0, 10.0)
_MOST_TURN = np.radians(45)  # a turn cannot make every mTRE: from there on, only the shift grows
_GRID = 12  # points across the ellipsoid


@dataclass(frozen=True)
class Start:
    """How a start differs from the truth.

    Attributes:
        turn: ``[3]`` rotation vector about the vertebra's centre, radians, axes of the CT.
        shift: ``[3]`` mm, axes of the CT.
        mtre_mm: of the body for which it was made.
    """

    turn: NDArray[np.float64]
    shift: NDArray[np.float64]
    mtre_mm: float

    def pose(self, truth: RigidTransform, centre: ArrayLike) -> RigidTransform:
        """The start of a vertebra.

        Args:
            truth: its world_from_ct.
            centre: ``[3]`` about which it turns, CT, mm.
        """
        about, turn = np.asarray(centre, dtype=np.float64), Rotation.from_rotvec(self.turn).as_matrix()
        return truth @ RigidTransform.from_rotation_translation(turn, about - turn @ about + self.shift)


def standard_body() -> NDArray[np.float64]:
    """Points of an ellipsoid about the origin that spread as a vertebra's do, ``[N, 3]`` mm."""
    axis = np.linspace(-1, 1, _GRID)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = points[(points**2).sum(axis=1) <= 1]
    return inside / inside.std(axis=0) * _SPREAD_MM


def standardised_starts(
    seed: int,
    *,
    up_to_mm: float = 20.0,
    bin_mm: float = 1.0,
    starts_a_bin: int = 10,
    body: ArrayLike | None = None,
) -> list[Start]:
    """Starts whose mTRE fills bins evenly.

    Directions in the six parameters are drawn without preference, a radian counting as the standard body is wide; each
    is then scaled until the body's mTRE is one drawn from the bin.

    Args:
        seed: of the draw.
        up_to_mm: end of the last bin.
        bin_mm: width of a bin.
        starts_a_bin: how many.
        body: points of a vertebra about its centre, ``[N, 3]`` mm, axes of the CT, whose mTRE is to fill the bins: the
            same directions as for any other, each scaled for it. Absent: one of a vertebra's size, so that the offsets
            are the very same for all; a given vertebra's own mTRE then differs by some 10 % from a start's.

    Returns:
        by rising bin.

    Raises:
        RadgsError: no bins or no starts are asked for.

    Source: van de Kraats et al., IEEE Transactions on Medical Imaging 24 (2005): 10 starts a mm.
    """
    bins = round(up_to_mm / bin_mm) if bin_mm > 0 else 0
    if bins < 1 or starts_a_bin < 1:
        raise RadgsError(f"at least one bin and one start are needed, got {up_to_mm:g} mm, {bin_mm:g} mm a bin")
    rng, standard = np.random.default_rng(seed), standard_body()
    radius = float(np.linalg.norm(standard, axis=1).mean())
    points = standard if body is None else np.asarray(body, dtype=np.float64)
    starts = []
    for lower in np.arange(bins) * bin_mm:
        for wanted in lower + bin_mm * rng.uniform(0, 1, starts_a_bin):
            direction = rng.normal(size=6)
            end = wanted
            while _mtre(*_scaled(direction, end, radius), points) < wanted:
                end *= 2
            scale = brentq(_excess, 0, end, args=(direction, radius, points, wanted))
            starts.append(Start(*_scaled(direction, scale, radius), float(wanted)))
    return starts


def publication_starts(
    seed: int, count: int, *, rotation_deg: float = 20.0, translation_mm: float = 50.0
) -> list[Start]:
    """Starts as in the publication: rotation vector and shift uniform within plus or minus, an axis each.

    Raises:
        RadgsError: no start is asked for.

    Source: RadGS-Reg (MICCAI 2025): +-20 degrees, +-50 mm. That its angles are a rotation vector's is our reading.
    """
    if count < 1:
        raise RadgsError(f"at least one start is needed, got {count}")
    rng, body = np.random.default_rng(seed), standard_body()
    limit = np.radians(rotation_deg)
    motions = [(rng.uniform(-limit, limit, 3), rng.uniform(-translation_mm, translation_mm, 3)) for _ in range(count)]
    return [Start(turn, shift, _mtre(turn, shift, body)) for turn, shift in motions]


def _scaled(
    direction: NDArray[np.float64], scale: float, radius: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn and shift along a direction of the six parameters."""
    turn = direction[:3] * scale / radius
    return turn * min(1.0, _MOST_TURN / max(float(np.linalg.norm(turn)), 1e-12)), direction[3:] * scale


def _excess(
    scale: float, direction: NDArray[np.float64], radius: float, body: NDArray[np.float64], wanted: float
) -> float:
    return _mtre(*_scaled(direction, scale, radius), body) - wanted


def _mtre(turn: NDArray[np.float64], shift: NDArray[np.float64], body: NDArray[np.float64]) -> float:
    moved = Rotation.from_rotvec(turn).apply(body) + shift
    return float(np.linalg.norm(moved - body, axis=1).mean())
