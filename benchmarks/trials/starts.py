"""Standardised starts (van de Kraats et al. 2005): the same offsets for every vertebra, from near to far."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.spatial.transform import Rotation

from radgs.geometry import RigidTransform
from radgs.registration import consensus

_FEW = 200  # points are enough for the size of an offset


def offset(rng: np.random.Generator, points: NDArray[np.float64], size_mm: float) -> RigidTransform:
    """A random motion of these points (``[n, 3]`` mm) by ``size_mm`` on average.

    It turns about their middle and shifts; directions and the ratio of both are random.
    """
    middle, few = points.mean(axis=0), points[:_FEW]
    arm = float(np.linalg.norm(few - middle, axis=-1).mean())
    turn, shift = rng.normal(size=3) / arm, rng.normal(size=3)

    def motion(scale: float) -> RigidTransform:
        rotation = Rotation.from_rotvec(turn * scale).as_matrix()
        return RigidTransform.from_rotation_translation(rotation, middle - rotation @ middle + shift * scale)

    def excess(scale: float) -> float:
        return float(np.linalg.norm(motion(scale).apply(few) - few, axis=-1).mean()) - size_mm

    return motion(brentq(excess, 0, 100 * size_mm))


def rest_shape(
    truth: Mapping[str, RigidTransform], points: Mapping[str, NDArray[np.float64]], motion: RigidTransform
) -> RigidTransform:
    """The CT's own shape laid on the true poses as well as it can, then moved by ``motion`` (CT): world_from_ct."""
    body, _ = consensus({level: truth[level] for level in points}, dict(points))
    return body @ motion
