"""Where each vertebra is, from where all were found: a spine bends, but not much from one vertebra to the next.

Every level has a pose. Neighbours meet in the joint between them, turned and shifted against each other by a few
degrees and millimetres; what was found pulls its level, the less the further off it is. The most probable spine is
found by Gauss-Newton steps with weights (Student's t for what was found and for the joints).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from radgs.geometry import RigidTransform

_FREEDOM = 3.0  # of Student's t
_JOINT_MM, _JOINT = 2.0, np.deg2rad(3.0)  # shift and turn of a joint, an axis
_LYING = np.deg2rad(20.0)  # the CT lies as the patient does, give or take that
_FACING = np.deg2rad(5.0)  # how well a level's turn about the patient's long axis is found
_AXES_MM2 = 25.0  # weight of the patient's nominal axes in the first guess
_ROUNDS = 8
_TINY = 1e-9
_STILL_MM, _STILL = 0.02, np.deg2rad(0.05)  # steps after which there is no other


@dataclass(frozen=True)
class Seen:
    """A level that was found.

    Attributes:
        point: ``[3]`` world, mm; where its centre is.
        sigma_mm: how well it is known, an axis; now and then it is wrong altogether.
        rotation: ``[3, 3]`` world_from_ct, whose turn about the patient's long axis is how it faces; None: unknown.
    """

    point: NDArray[np.float64]
    sigma_mm: float = 2.0
    rotation: NDArray[np.float64] | None = None


def place_spine(
    found: Mapping[str, Seen],
    levels: Sequence[str],
    centres: Mapping[str, NDArray[np.float64]],
    world_from_patient: NDArray[np.float64],
) -> dict[str, RigidTransform]:
    """The most probable pose of every level.

    Args:
        found: by level; one at least.
        levels: from head to foot.
        centres: by level, ``[3]`` in the CT, mm.
        world_from_patient: ``[3, 3]`` the patient's left, posterior and superior in the world.

    Returns:
        by level, world_from_ct.
    """
    shape = np.stack([centres[level] for level in levels])
    rows = {levels.index(level): seen for level, seen in found.items()}
    target = np.stack([seen.point for seen in rows.values()])
    first = _lay(shape[list(rows)], target, world_from_patient)
    rotation = np.broadcast_to(first, (len(levels), 3, 3)).copy()
    place = shape @ first.T + np.median(target - shape[list(rows)] @ first.T, axis=0)
    for _ in range(_ROUNDS):
        turn, move = _step(shape, rows, place, rotation, world_from_patient)
        rotation = Rotation.from_rotvec(turn).as_matrix() @ rotation
        place = place + move
        if np.abs(move).max() < _STILL_MM and np.abs(turn).max() < _STILL:
            break
    return {
        level: RigidTransform.from_rotation_translation(rotation[i], place[i] - rotation[i] @ shape[i])
        for i, level in enumerate(levels)
    }


class _System:
    """Weighted linear equations, three a time, in turns (about the world's axes) and moves of all levels."""

    def __init__(self, levels: int) -> None:
        self.matrix, self.vector = np.zeros((levels, 6, levels, 6)), np.zeros((levels, 6))

    def add(
        self,
        residual: NDArray[np.float64],
        sigma: NDArray[np.float64] | float,
        blocks: Mapping[tuple[int, int], NDArray[np.float64]],
        rows: NDArray[np.int64],
        tails: bool = True,
    ) -> None:
        """``residual`` and blocks times unknowns should add to 0, give or take ``sigma``.

        Args:
            residual: ``[n, 3]``, of n such sums.
            sigma: of each.
            blocks: ``[n, 3, 3]``, by how many levels further on, and 0 for turns or 3 for moves.
            rows: ``[n]`` the level of each, none twice.
            tails: whether it may be otherwise now and then.
        """
        weight = np.broadcast_to(1.0 / np.square(sigma), len(rows))
        if tails:
            weight = weight * (_FREEDOM + 3) / (_FREEDOM + (residual**2).sum(axis=1) * weight)
        for (on, part), block in blocks.items():
            weighted = (block * weight[:, None, None]).swapaxes(1, 2)
            self.vector[rows + on, part : part + 3] += (weighted @ residual[..., None])[..., 0]
            for (other, kind), beside in blocks.items():
                view = self.matrix[:, part : part + 3, :, kind : kind + 3]
                view[rows + on, :, rows + other] += weighted @ beside

    def solve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Turns and moves, ``[L, 3]`` each."""
        size = self.vector.size
        solution = np.linalg.solve(self.matrix.reshape(size, size), -self.vector.ravel())
        change: NDArray[np.float64] = solution.astype(np.float64).reshape(-1, 6)
        return change[:, :3], change[:, 3:]


def _step(
    shape: NDArray[np.float64],
    found: Mapping[int, Seen],
    place: NDArray[np.float64],
    rotation: NDArray[np.float64],
    nominal: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One Gauss-Newton step from ``place`` and ``rotation`` (world_from_ct) of all levels."""
    system, one = _System(len(shape)), np.eye(3)[None]
    rows = np.array(list(found))
    points, sigma = np.stack([seen.point for seen in found.values()]), np.array([s.sigma_mm for s in found.values()])
    system.add(place[rows] - points, sigma, {(0, 3): one}, rows)
    faces = {i: seen.rotation for i, seen in found.items() if seen.rotation is not None}
    if faces:
        rows = np.array(list(faces))
        system.add(_turn(rotation[rows], np.stack(list(faces.values()))), _FACING, {(0, 0): one}, rows)
    above, below = np.arange(len(shape) - 1), np.arange(1, len(shape))
    half = (shape[below] - shape[above])[..., None] / 2
    upper, lower = (rotation[above] @ half)[..., 0], -(rotation[below] @ half)[..., 0]
    apart = {(0, 0): _cross(upper), (0, 3): -one, (1, 0): -_cross(lower), (1, 3): one}
    system.add(place[below] + lower - place[above] - upper, _JOINT_MM, apart, above)
    system.add(_turn(rotation[below], rotation[above]), _JOINT, {(0, 0): -one, (1, 0): one}, above)
    middle = np.array(list(found))[[len(found) // 2]]
    system.add(_turn(rotation[middle], nominal[None]), _LYING, {(0, 0): one}, middle, tails=False)
    return system.solve()


def _turn(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation vectors from ``b`` to ``a``, ``[n, 3]``; shorter than half a turn."""
    turn = a @ b.swapaxes(1, 2)
    double = np.stack([turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]], -1)
    sine = np.sqrt((double**2).sum(axis=1)) / 2
    angle = np.arctan2(sine, (turn[:, 0, 0] + turn[:, 1, 1] + turn[:, 2, 2] - 1) / 2)
    scale: NDArray[np.float64] = np.where(sine > _TINY, angle / np.maximum(2 * sine, _TINY), 0.5)
    return double * scale[:, None]


def _cross(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrices of ``v x``, ``[n, 3, 3]``."""
    out = np.zeros((len(v), 3, 3))
    out[:, 2, 1], out[:, 0, 2], out[:, 1, 0] = v.T
    return out - out.swapaxes(1, 2)


def _lay(
    source: NDArray[np.float64], target: NDArray[np.float64], world_from_patient: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The rotation nearest to pairs of points (Kabsch) and, weakly, to the patient's nominal axes."""
    a, b = source - source.mean(axis=0), target - np.median(target, axis=0)
    covariance = b.T @ a / len(a) + _AXES_MM2 * world_from_patient
    u, _, vt = np.linalg.svd(covariance)
    return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
