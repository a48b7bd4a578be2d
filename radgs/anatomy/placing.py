"""Where each vertebra is, from where all were found: a spine bends, but not much from one vertebra to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from radgs.geometry import RigidTransform

_REACH_LEVELS = 2.5  # standard deviation of the weight of other levels
_TYPICAL_ERROR_MM = 3.0  # what is further off than this counts less
_ROUNDS = 5
_ARM_MM, _PRIOR_WEIGHT = 50.0, 0.01  # the CT lies as the patient does, give or take some 20 degrees


def place_spine(
    found: Mapping[str, NDArray[np.float64]],
    levels: Sequence[str],
    centres: Mapping[str, NDArray[np.float64]],
    world_from_patient: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """The place of every level by the CT's own spine, laid locally on the points found (weighted Kabsch).

    Args:
        found: by level, ``[3]`` world, mm; errors of millimetres, now and then a wrong one.
        levels: from head to foot.
        centres: by level, ``[3]`` in the CT, mm.
        world_from_patient: ``[3, 3]`` the patient's left, posterior and superior in the world.

    Returns:
        by level, ``[3]`` world, mm.
    """
    names = [level for level in levels if level in found]
    rows = np.array([levels.index(level) for level in names])
    source, target = np.stack([centres[k] for k in names]), np.stack([found[k] for k in names])
    trust = np.ones(len(names))
    for _ in range(_ROUNDS):
        error = [
            np.linalg.norm(_lay(source, target, _near(rows, row) * trust, world_from_patient).apply(c) - p)
            for row, c, p in zip(rows, source, target, strict=True)
        ]
        trust = 1 / (1 + (np.array(error) / _TYPICAL_ERROR_MM) ** 2)
    return {
        level: _lay(source, target, _near(rows, row) * trust, world_from_patient).apply(centres[level])
        for row, level in enumerate(levels)
    }


def _near(rows: NDArray[np.int64], row: int) -> NDArray[np.float64]:
    return np.exp(-0.5 * ((rows - row) / _REACH_LEVELS) ** 2)


def _lay(
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    weight: NDArray[np.float64],
    world_from_patient: NDArray[np.float64],
) -> RigidTransform:
    """The rigid motion nearest to weighted pairs of points and, weakly, to the patient's nominal axes."""
    w = weight[:, None] / weight.sum()
    a, b = (w * source).sum(axis=0), (w * target).sum(axis=0)
    covariance = (w * (target - b)).T @ (source - a) + _PRIOR_WEIGHT * _ARM_MM**2 * world_from_patient
    u, _, vt = np.linalg.svd(covariance)
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    return RigidTransform.from_rotation_translation(rotation, b - rotation @ a)
