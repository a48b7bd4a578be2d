"""Where each vertebra is, from where all were found: a spine bends, but not much from one vertebra to the next.

Every level has a pose. Neighbours meet in the joint between them, turned and shifted against each other by a few
degrees and millimetres; what was found pulls its level, the less the further off it is. The most probable spine is
found by Gauss-Newton steps with weights (Student's t for what was found and for the joints).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

_FOUND_MM, _LEAST_SCORE = 2.0, 0.2  # how well a level is found, an axis, at score 1; 1 / score as badly below
_FREEDOM = 3.0  # of Student's t
_JOINT_MM, _JOINT_DEG = 1.5, 3.0  # shift and turn of a joint, an axis
_LYING_DEG = 20.0  # the CT lies as the patient does, give or take that
_AXES_MM2 = 25.0  # weight of the patient's nominal axes in the first guess
_ROUNDS = 10


def place_spine(
    found: Mapping[str, NDArray[np.float64]],
    levels: Sequence[str],
    centres: Mapping[str, NDArray[np.float64]],
    world_from_patient: NDArray[np.float64],
    scores: Mapping[str, float] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """The most probable place of every level.

    Args:
        found: by level, ``[3]`` world, mm; errors of millimetres, now and then a wrong one.
        levels: from head to foot.
        centres: by level, ``[3]`` in the CT, mm.
        world_from_patient: ``[3, 3]`` the patient's left, posterior and superior in the world.
        scores: by level, how sure its finder is, 0 to 1; none: as sure of all.

    Returns:
        by level, ``[3]`` world, mm.
    """
    shape = np.stack([centres[level] for level in levels])
    seen = np.array([i for i, level in enumerate(levels) if level in found])
    target = np.stack([found[levels[i]] for i in seen])
    sigma = np.array([_FOUND_MM / max((scores or {}).get(levels[i], 1.0), _LEAST_SCORE) for i in seen])
    rotation = np.broadcast_to(_lay(shape[seen], target, world_from_patient), (len(levels), 3, 3)).copy()
    shift = np.median(target - shape[seen] @ rotation[0].T, axis=0)
    place = shape @ rotation[0].T + shift
    for _ in range(_ROUNDS):
        turn, move = _step(shape, seen, target, sigma, place, rotation, world_from_patient)
        rotation = Rotation.from_rotvec(turn).as_matrix() @ rotation
        place = place + move
    return dict(zip(levels, place, strict=True))


class _System:
    """Weighted linear equations, three a time, in turns (about the world's axes) and moves of all levels."""

    def __init__(self, levels: int) -> None:
        self.levels, self.rows, self.values = levels, list[NDArray[np.float64]](), list[NDArray[np.float64]]()

    def add(
        self, residual: NDArray[np.float64], sigma: float, blocks: Mapping[int, NDArray[np.float64]], tails: bool = True
    ) -> None:
        """``residual`` and blocks times unknowns should add to 0, give or take ``sigma``; ``tails``: not always."""
        weight = (_FREEDOM + 3) / (_FREEDOM + residual @ residual / sigma**2) if tails else 1.0
        row = np.zeros((3, 6 * self.levels))
        for column, block in blocks.items():
            row[:, column : column + 3] = block
        self.rows.append(row * np.sqrt(weight) / sigma)
        self.values.append(residual * np.sqrt(weight) / sigma)

    def solve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Turns and moves, ``[L, 3]`` each."""
        solution = np.linalg.lstsq(np.concatenate(self.rows), -np.concatenate(self.values), rcond=None)[0]
        change: NDArray[np.float64] = solution.astype(np.float64).reshape(-1, 6)
        return change[:, :3], change[:, 3:]


def _step(
    shape: NDArray[np.float64],
    seen: NDArray[np.int64],
    target: NDArray[np.float64],
    sigma: NDArray[np.float64],
    place: NDArray[np.float64],
    rotation: NDArray[np.float64],
    nominal: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One Gauss-Newton step from ``place`` and ``rotation`` (world_from_ct) of all levels."""
    system, one = _System(len(shape)), np.eye(3)
    for i, point, error in zip(seen.tolist(), target, sigma.tolist(), strict=True):
        system.add(place[i] - point, error, {6 * i + 3: one})
    for i in range(len(shape) - 1):
        turn, move, next_turn, next_move = (6 * i + 3 * k for k in range(4))
        joint = (shape[i] + shape[i + 1]) / 2
        above, below = (rotation[k] @ (joint - shape[k]) for k in (i, i + 1))
        apart = {turn: _cross(above), move: -one, next_turn: -_cross(below), next_move: one}
        system.add(place[i + 1] + below - place[i] - above, _JOINT_MM, apart)
        bend = Rotation.from_matrix(rotation[i + 1] @ rotation[i].T).as_rotvec()
        system.add(bend, np.deg2rad(_JOINT_DEG), {turn: -one, next_turn: one})
    middle = int(seen[len(seen) // 2])
    lying = Rotation.from_matrix(rotation[middle] @ nominal.T).as_rotvec()
    system.add(lying, np.deg2rad(_LYING_DEG), {6 * middle: one}, tails=False)
    return system.solve()


def _cross(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix of ``v x``."""
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])


def _lay(
    source: NDArray[np.float64], target: NDArray[np.float64], world_from_patient: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The rotation nearest to pairs of points (Kabsch) and, weakly, to the patient's nominal axes."""
    a, b = source - source.mean(axis=0), target - np.median(target, axis=0)
    covariance = b.T @ a / len(a) + _AXES_MM2 * world_from_patient
    u, _, vt = np.linalg.svd(covariance)
    return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
