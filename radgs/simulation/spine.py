"""A spine that bends: soft tissue and every vertebra at poses of their own; line integrals add."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radgs.anatomy import LEVELS, SpineTissue
from radgs.config import SpineMotionSettings
from radgs.errors import AnatomyError
from radgs.geometry import Camera, RigidTransform
from radgs.projection import project_part


@dataclass(frozen=True)
class SpinePose:
    """Where everything is: ``world_from_ct`` of the soft tissue and of each level."""

    soft: RigidTransform
    levels: dict[str, RigidTransform]


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    v = rng.normal(size=3)
    return v / np.linalg.norm(v)


def sample_spine_pose(
    rng: np.random.Generator,
    centres: Mapping[str, NDArray[np.float64]],
    targets: Sequence[str],
    settings: SpineMotionSettings,
) -> SpinePose:
    """A random pose: the whole turned and moved about the middle of the targets, then neighbours against each other.

    Args:
        rng: source of randomness.
        centres: by level, ``[3]`` LPS mm of the CT.
        targets: the levels whose middle lies at the isocentre before it is moved.
        settings: limits; whole: each axis uniform; neighbours: random direction, size uniform up to the limit.

    Raises:
        AnatomyError: a target has no centre.
    """
    missing = [t for t in targets if t not in centres]
    if missing:
        raise AnatomyError(f"{', '.join(missing)} not among the CT's levels {sorted(centres)}")
    pivot = np.mean([centres[t] for t in targets], axis=0)
    turn, move = math.radians(settings.rotation_deg), settings.translation_mm
    whole = RigidTransform.about(pivot, rng.uniform(-turn, turn, 3), rng.uniform(-move, move, 3) - pivot)
    order = sorted(centres, key=lambda name: -centres[name][2])
    start = min(range(len(order)), key=lambda i: abs(centres[order[i]][2] - pivot[2]))
    levels = {order[start]: whole}
    for chain in (range(start + 1, len(order)), range(start - 1, -1, -1)):
        previous = order[start]
        for i in chain:
            joint = (centres[previous] + centres[order[i]]) / 2
            bend = _direction(rng) * math.radians(rng.uniform(0, settings.neighbour_rotation_deg))
            slip = _direction(rng) * rng.uniform(0, settings.neighbour_translation_mm)
            levels[order[i]] = levels[previous] @ RigidTransform.about(joint, bend, slip)
            previous = order[i]
    return SpinePose(whole, levels)


@dataclass(frozen=True)
class ArticulatedSpine:
    """Projects a CT whose vertebrae have poses of their own (DESIGN section 5)."""

    tissue: SpineTissue

    @property
    def centres(self) -> dict[str, NDArray[np.float64]]:
        """By level, the middle of its box, LPS mm."""
        return {level: self.tissue.centre(level) for level in self.tissue.excess}

    def project(
        self, camera: Camera, pose: SpinePose, step_mm: float = 1.0
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Line integrals of the soft tissue and, summed, of the vertebrae's excess, each ``[H, W]``, at 70 keV."""
        soft = project_part(self.tissue.soft, camera, pose.soft, step_mm)
        bone = np.zeros_like(soft)
        for level, part in self.tissue.excess.items():
            bone += project_part(part, camera, pose.levels[level], step_mm)
        return soft, bone

    def box(self, camera: Camera, level: str, world_from_ct: RigidTransform) -> NDArray[np.float64]:
        """The edges (u0, v0, u1, v1) of the projected vertebra, pixels, not cut at the image's border."""
        uv = camera.project(world_from_ct.apply(self.tissue.points(level)))
        return np.concatenate([uv.min(axis=0) - 0.5, uv.max(axis=0) + 0.5])


def jittered_box(rng: np.random.Generator, box: NDArray[np.float64], jitter_px: float) -> NDArray[np.float64]:
    """A box as a detector would give it: its centre and its size each off by up to ``jitter_px``."""
    shift, grow = rng.uniform(-jitter_px, jitter_px, 2), rng.uniform(-jitter_px, jitter_px, 2) / 2
    return box + np.concatenate([shift - grow, shift + grow])


def present_levels(labels: NDArray[np.integer]) -> list[str]:
    """The levels of a label map."""
    numbers = set(np.unique(labels).tolist())
    return [name for name, number in LEVELS.items() if number in numbers and name != "S"]
