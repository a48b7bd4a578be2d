"""Where else vertebrae might lie: each is drawn, shifted over the X-rays and turned; views have to agree.

What is compared is fine detail (`radgs.anatomy.matching`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from radgs.anatomy import off_cost, vertex
from radgs.geometry import RigidTransform
from radgs.registration.scene import Scene

_SPINE_FACTOR, _SPINE_MM, _STEP_MM = 2, 40.0, 4.0  # the spine: pixels binned, shifts along each axis, their steps
_SPINE_OFF_MM, _SPINE_OFF_DEG = 30.0, 50.0  # so far off it may well be
_JOINT_MM, _JOINT_OFF_MM = 12.0, 6.0  # one vertebra: the same
_APART_MM = 10.0
_TURN_DEG = 8.0
_TURNS = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])


def _ball(radius: int) -> NDArray[np.float64]:
    """Points of whole numbers no further than ``radius`` from 0, ``[n, 3]``."""
    along = np.arange(-radius, radius + 1)
    points = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)
    return points[(points**2).sum(axis=1) <= radius**2].astype(np.float64)


#: Rotation vectors that the spine may be turned by, degrees: a little, and out to 48 degrees.
NEAR_TURNS, FAR_TURNS = _TURN_DEG * _TURNS, 16.0 * _ball(3)


def search_spine(
    scene: Scene, poses: Mapping[str, RigidTransform], turns_deg: NDArray[np.float64], count: int
) -> list[RigidTransform]:
    """The likeliest rigid motions in the world of all vertebrae together, the likeliest first.

    Joints bend: each vertebra may lie a step of the search off.

    Args:
        scene: the X-rays and the CT.
        poses: world_from_ct, roughly.
        turns_deg: ``[n, 3]``, rotation vectors that are tried.
        count: at most so many, whose shifts are at least 1 cm apart.
    """
    matcher, levels = scene.coarser(_SPINE_FACTOR).matcher, list(poses)
    middle = np.stack([pose.apply(matcher.centres[k]) for k, pose in poses.items()]).mean(axis=0)
    axis = np.arange(-_SPINE_MM, _SPINE_MM + _STEP_MM / 2, _STEP_MM)
    turns = [RigidTransform.about(middle, np.radians(turn)) for turn in turns_deg]
    moved = [{k: turn @ pose for k, pose in poses.items()} for turn in turns]
    fits = [matcher.fits(there, levels, axis) for there in moved]
    scores = np.stack([(each + ndimage.maximum_filter(each, (1, 3, 3, 3))).mean(axis=0).ravel() / 2 for each in fits])
    shifts = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    scores -= off_cost((shifts**2).sum(axis=1), _SPINE_OFF_MM)
    scores -= off_cost((turns_deg**2).sum(axis=1), _SPINE_OFF_DEG)[:, None]
    found: list[tuple[int, int]] = []
    for best in np.argsort(-scores, axis=None):
        turn, shift = np.unravel_index(best, scores.shape)
        if all(np.linalg.norm(shifts[shift] - shifts[other]) >= _APART_MM for _, other in found):
            found.append((int(turn), int(shift)))
        if len(found) == count:
            break
    return [RigidTransform.from_rotation_translation(np.eye(3), shifts[s]) @ turns[t] for t, s in found]


def search_joint(scene: Scene, level: str, beside: RigidTransform) -> RigidTransform:
    """Where one vertebra lies, looked for around where an unbent joint would put it.

    Args:
        scene: the X-rays and the CT.
        level: its name.
        beside: world_from_ct of its neighbour.
    """
    matcher = scene.matcher
    centre = beside.apply(matcher.centres[level])

    def tried(turn: NDArray[np.float64]) -> tuple[float, RigidTransform]:
        pose = RigidTransform.about(centre, np.radians(_TURN_DEG) * turn) @ beside
        match = matcher.match(dict.fromkeys(scene.parts, pose), [level], _JOINT_MM, _JOINT_OFF_MM)[level]
        return match.worth, RigidTransform.from_rotation_translation(np.eye(3), match.shift) @ pose

    found = [tried(turn) for turn in _TURNS]
    worth = [one for one, _ in found]
    likeliest = np.array([vertex(worth[4 + axis], worth[0], worth[1 + axis]) for axis in range(3)])
    return max([*found, tried(likeliest)], key=lambda one: one[0])[1]
