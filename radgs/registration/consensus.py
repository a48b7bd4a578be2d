"""The one rigid pose that agrees with most of several vertebrae's poses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from radgs.geometry import RigidTransform

_ROUNDS = 10
_TYPICAL_ERROR_MM = 4.0


def _procrustes(
    source: NDArray[np.float64], target: NDArray[np.float64], weight: NDArray[np.float64]
) -> RigidTransform:
    """The rigid transform that takes weighted source points nearest to target points (Kabsch)."""
    w = weight[:, None] / weight.sum()
    a, b = (w * source).sum(axis=0), (w * target).sum(axis=0)
    u, _, vt = np.linalg.svd((w * (target - b)).T @ (source - a))
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    return RigidTransform.from_rotation_translation(rotation, b - rotation @ a)


def consensus(
    poses: Mapping[str, RigidTransform], points: Mapping[str, NDArray[np.float64]]
) -> tuple[RigidTransform, dict[str, float]]:
    """The one rigid pose nearest to the poses of several levels, levels that disagree counting less.

    Args:
        poses: world_from_ct by level.
        points: by level, points of the vertebra, ``[n, 3]`` ct, mm.

    Returns:
        the pose, and by level the root mean square distance (mm) of its own pose from it.
    """
    levels = list(poses)
    source = np.concatenate([points[level] for level in levels])
    target = np.concatenate([poses[level].apply(points[level]) for level in levels])
    owner = np.repeat(np.arange(len(levels)), [len(points[level]) for level in levels])
    weight = np.ones(len(source))
    for _ in range(_ROUNDS):
        pose = _procrustes(source, target, weight)
        square = ((pose.apply(source) - target) ** 2).sum(axis=1)
        distance = np.sqrt(np.bincount(owner, square) / np.bincount(owner))
        weight = (1 / (1 + (distance / _TYPICAL_ERROR_MM) ** 2))[owner]
    return pose, dict(zip(levels, distance.tolist(), strict=True))
