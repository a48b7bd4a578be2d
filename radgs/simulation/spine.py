"""A spine that bends: soft tissue and every vertebra at poses of their own; line integrals add."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from radgs.anatomy import LEVELS, SpineTissue
from radgs.config import SpineMotionSettings
from radgs.errors import AnatomyError
from radgs.geometry import Camera, RigidTransform
from radgs.images import Volume
from radgs.projection import project


@dataclass(frozen=True)
class SpinePose:
    """Where everything is: ``world_from_ct`` of the soft tissue and of each level."""

    soft: RigidTransform
    levels: dict[str, RigidTransform]


def _about(centre: NDArray[np.float64], rotvec: NDArray[np.float64], shift: NDArray[np.float64]) -> RigidTransform:
    rotation = Rotation.from_rotvec(rotvec).as_matrix()
    return RigidTransform.from_rotation_translation(rotation, centre - rotation @ centre + shift)


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
    whole = _about(pivot, rng.uniform(-turn, turn, 3), rng.uniform(-move, move, 3) - pivot)
    order = sorted(centres, key=lambda name: -centres[name][2])
    start = min(range(len(order)), key=lambda i: abs(centres[order[i]][2] - pivot[2]))
    levels = {order[start]: whole}
    for chain in (range(start + 1, len(order)), range(start - 1, -1, -1)):
        previous = order[start]
        for i in chain:
            joint = (centres[previous] + centres[order[i]]) / 2
            bend = _direction(rng) * math.radians(rng.uniform(0, settings.neighbour_rotation_deg))
            slip = _direction(rng) * rng.uniform(0, settings.neighbour_translation_mm)
            levels[order[i]] = levels[previous] @ _about(joint, bend, slip)
            previous = order[i]
    return SpinePose(whole, levels)


def project_part(part: Volume, camera: Camera, world_from_ct: RigidTransform, step_mm: float) -> NDArray[np.float32]:
    """Line integrals of one part, ``[H, W]``; errors as of :func:`project_parts`."""
    return project_parts(part, [camera], [world_from_ct], step_mm)[0]


def project_parts(
    part: Volume, cameras: Sequence[Camera], world_from_ct: Sequence[RigidTransform], step_mm: float
) -> NDArray[np.float32]:
    """Line integrals of one part in each of n images of one size, at a pose of its own in each, ``[n, H, W]``.

    All are drawn in one call, and of each image only a rectangle that the part cannot leave: one call for each image
    takes longer to begin than to draw a window.

    Raises:
        AnatomyError: the part lies behind an X-ray source.
    """
    size = np.array([cameras[0].width, cameras[0].height])
    K = np.stack([camera.K for camera in cameras])
    poses = np.stack([c.camera_from_world.matrix @ w.matrix for c, w in zip(cameras, world_from_ct, strict=True)])
    seen = part.corners @ poses[:, :3, :3].swapaxes(1, 2) + poses[:, None, :3, 3]
    if (seen[..., 2] <= 0).any():
        raise AnatomyError("a part of the CT lies behind the X-ray source")
    pixel = seen @ K.swapaxes(1, 2)
    uv = pixel[..., :2] / pixel[..., 2:]
    low = np.clip(np.floor(uv.min(axis=1)).astype(int) - 2, 0, size)
    high = np.clip(np.ceil(uv.max(axis=1)).astype(int) + 3, 0, size)
    images = np.zeros((len(cameras), size[1], size[0]), dtype=np.float32)
    reached = np.flatnonzero((high > low).all(axis=1))
    if not len(reached):
        return images
    width, height = (high - low)[reached].max(axis=0).tolist()
    first = np.minimum(low, size - [width, height])
    K[:, :2, 2] -= first
    drawn = project(
        torch.from_numpy(np.ascontiguousarray(part.array, dtype=np.float32)),
        torch.from_numpy(part.index_from_lps),
        torch.from_numpy(K[reached]),
        torch.from_numpy(poses[reached]),
        (height, width),
        step_mm=step_mm,
    )
    for i, one in zip(reached, drawn.numpy(), strict=True):
        u, v = first[i]
        images[i, v : v + height, u : u + width] = one
    return images


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
