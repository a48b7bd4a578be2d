"""Refinement on the X-rays: all views share one pose a vertebra, neighbours are tied by a prior.

The objective is gradient correlation (Penney et al. 1998) near each projected vertebra between the X-ray and the sum
of all visible vertebrae, after the gradients that the CT's soft tissue and ribs would make there are taken out of both
(as far as the X-ray shows them). First the segment moves as one body, then each vertebra on its own, coarse to fine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from radgs.anatomy import LEVELS
from radgs.config import RefinementSettings
from radgs.errors import GeometryError
from radgs.geometry import RigidTransform, rigid_motion
from radgs.registration.consensus import consensus
from radgs.registration.scene import Scene, blur, gradients, partial_ncc

_VISIBLE = 0.01  # a line integral of bone that counts as the vertebra's silhouette
_FEWEST_PIXELS = 50
_RATE_RAD, _RATE_MM = 0.004, 0.2  # of Adam, per pixel of blur

Poses = dict[str, Float64[Tensor, "4 4"]]


@dataclass(frozen=True)
class Target:
    """What a view is compared with at one blur.

    Attributes:
        gradients: ``[2, 2, H, W]``: of the X-ray and of the CT's soft tissue, along u and v.
        usable: ``[H, W]`` 0 or 1.
    """

    gradients: Float[Tensor, "2 2 H W"]
    usable: Float[Tensor, "H W"]


@dataclass(frozen=True)
class Refined:
    """The result for a shot.

    Attributes:
        world_from_ct: by level.
        similarity: by level and view, mean gradient correlation of the two directions, -1 to 1.
        objective: by level, sum of the gradient correlations over views and directions minus its share of the prior;
            higher is better.
    """

    world_from_ct: dict[str, RigidTransform]
    similarity: dict[str, dict[str, float]]

    def objective(self, level: str) -> float:
        """Sum of the level's similarities over views; higher is better."""
        return sum(self.similarity.get(level, {}).values())


def relative_motion_prior(scene: Scene, poses: Poses, settings: RefinementSettings) -> Float64[Tensor, ""]:
    """Squared, standardised relative turns and gaps of neighbouring vertebrae, against their places in the CT."""
    order = sorted(poses, key=lambda level: LEVELS[level])
    total = torch.zeros((), dtype=torch.float64)
    for upper, lower in pairwise(order):
        middle = (scene.parts[upper].centre + scene.parts[lower].centre) / 2
        a, b = poses[upper], poses[lower]
        turn = ((a[:3, :3].T @ b[:3, :3] - torch.eye(3, dtype=torch.float64)) ** 2).sum() / 2
        gap = ((a[:3, :3] @ middle + a[:3, 3] - b[:3, :3] @ middle - b[:3, 3]) ** 2).sum()
        total = total + turn / math.radians(settings.prior_deg) ** 2 + gap / settings.prior_mm**2
    return total


def similarities(
    scene: Scene, poses: Poses, targets: Mapping[str, Target], sigma_px: float, step_mm: float
) -> dict[str, dict[str, Tensor]]:
    """By level and view, the mean gradient correlation near the projected vertebra; gradient to the poses."""
    out: dict[str, dict[str, Tensor]] = {level: {} for level in poses}
    for name, view in scene.views.items():
        drawn = scene.draw(view, poses, step_mm)
        if drawn is None:
            continue
        (y0, y1, x0, x1), image, alone = drawn
        moving = gradients(blur(image[None], sigma_px))[0]
        still, soft = targets[name].gradients[..., y0:y1, x0:x1]
        usable = targets[name].usable[y0:y1, x0:x1]
        silhouettes = torch.stack(list(alone.values())).detach() > _VISIBLE
        near = F.max_pool2d(silhouettes.float()[:, None], 9, 1, 4)[:, 0] * usable
        ncc = partial_ncc(moving[None], still[None], soft[None], near[:, None]).mean(dim=1)
        for value, weight, level in zip(ncc, near, alone, strict=True):
            if float(weight.sum()) > _FEWEST_PIXELS:
                out[level][name] = value
    return out


def make_targets(scene: Scene, poses: Poses, sigma_px: float) -> dict[str, Target]:
    """What each view is compared with; the soft tissue lies where most of the vertebrae say."""
    body = _mean_pose(scene, poses)
    targets = {}
    for name, view in scene.views.items():
        pair = torch.stack([view.image, scene.draw_soft(view, body)])
        targets[name] = Target(gradients(blur(pair, sigma_px)), view.usable(sigma_px))
    return targets


def _mean_pose(scene: Scene, poses: Poses) -> Float64[Tensor, "4 4"]:
    points = {level: scene.parts[level].corners.numpy() for level in poses}
    return consensus({level: RigidTransform.nearest(pose.numpy()) for level, pose in poses.items()}, points)[0].tensor()


def _moved(scene: Scene, poses: Poses, rotvec: Tensor, shift: Tensor, together: bool) -> Poses:
    """Poses after turning each CT part about its centre (or all about their common centre)."""
    levels = list(poses)
    centres = torch.stack([scene.parts[level].centre for level in levels])
    if together:
        centres = centres.mean(dim=0, keepdim=True)
    motion = rigid_motion(rotvec, shift, centres).expand(len(levels), 4, 4)
    return {level: poses[level] @ motion[i] for i, level in enumerate(levels)}


def _stage(
    scene: Scene, poses: Poses, settings: RefinementSettings, *, together: bool, sigma_px: float, steps: int
) -> Poses:
    count = 1 if together else len(poses)
    rotvec = torch.zeros(count, 3, dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(count, 3, dtype=torch.float64, requires_grad=True)
    targets = make_targets(scene, poses, sigma_px)
    groups = [
        {"params": [rotvec], "lr": _RATE_RAD * sigma_px},
        {"params": [shift], "lr": _RATE_MM * sigma_px},
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.8, 0.95))
    for _ in range(steps):
        now = _moved(scene, poses, rotvec, shift, together)
        found = similarities(scene, now, targets, sigma_px, settings.step_mm)
        values = [2 * value for views in found.values() for value in views.values()]
        if not values:
            raise GeometryError("no vertebra is visible in any X-ray at its estimated pose")
        loss = -torch.stack(values).sum()
        if not together:
            loss = loss + settings.prior_weight * relative_motion_prior(scene, now, settings)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return _moved(scene, poses, rotvec, shift, together)


def refine(
    scene: Scene,
    start: Mapping[str, RigidTransform],
    settings: RefinementSettings,
    *,
    as_one_body: bool = True,
) -> Refined:
    """Refine the poses of all vertebrae of a scene together.

    Args:
        scene: the X-rays and the vertebrae that may be seen in them.
        start: world_from_ct by level, for every level of the scene.
        settings: blur and steps of each stage, and the prior.
        as_one_body: whether the segment first moves as one rigid body (when the start is one rigid pose).

    Raises:
        GeometryError: no vertebra is visible.
    """
    poses = {level: start[level].tensor() for level in scene.parts}
    schedule = [(True, *s) for s in settings.one_body_stages] if as_one_body else []
    schedule += [(False, *s) for s in settings.articulated_stages]
    for together, sigma_px, steps in schedule:
        poses = _stage(scene, poses, settings, together=together, sigma_px=sigma_px, steps=int(steps))
    sigma_px = settings.articulated_stages[-1][0]
    with torch.no_grad():
        found = similarities(scene, poses, make_targets(scene, poses, sigma_px), sigma_px, settings.step_mm)
    similarity = {level: {view: float(v) for view, v in views.items()} for level, views in found.items()}
    return Refined({level: RigidTransform.nearest(pose.numpy()) for level, pose in poses.items()}, similarity)
