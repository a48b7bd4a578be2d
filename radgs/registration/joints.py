"""The prior on joints: neighbours lie to each other about as in the CT.

It may be Cauchy's: a joint that is bent as expected is held as by a Gaussian's, one that is bent far more hardly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float64
from torch import Tensor

from radgs.anatomy import cranio_caudal
from radgs.config import RefinementSettings
from radgs.geometry import cross_matrix
from radgs.registration.scene import Poses, Scene

_EXPECTED = 3.0  # squared length of a standardised turn, or gap


@dataclass(frozen=True)
class JointPrior:
    """Its part of the loss, of weight 1, and its quadratic model by the levels' parameters."""

    loss: float
    gradient: Float64[Tensor, " p"]
    hessian: Float64[Tensor, "p p"]


def joint_prior(scene: Scene, poses: Poses, settings: RefinementSettings, *, lets_go: bool) -> JointPrior:
    """What joints cost at ``poses``.

    Args:
        scene: where vertebrae lie in the CT.
        poses: by level, world_from_ct.
        settings: the prior's spreads.
        lets_go: whether it is Cauchy's; else a Gaussian's.
    """
    residual, by_pose = prior_residuals(scene, poses, settings)
    squared = residual.view(-1, 3).square().sum(dim=1) / _EXPECTED
    loss, held = (squared.log1p(), 1 / (1 + squared)) if lets_go else (squared, torch.ones_like(squared))
    held = held.repeat_interleave(3)
    gradient, hessian = 2 * by_pose.T @ (held * residual), 2 * by_pose.T @ (held[:, None] * by_pose)
    return JointPrior(_EXPECTED * float(loss.sum()), gradient, hessian)


def prior_residuals(
    scene: Scene, poses: Poses, settings: RefinementSettings
) -> tuple[Float64[Tensor, " r"], Float64[Tensor, "r p"]]:
    """Standardised relative turns and gaps of neighbours against their places in the CT, and their derivatives."""
    levels = list(poses)
    order = cranio_caudal(levels)
    if len(order) < 2:
        return torch.zeros(0, dtype=torch.float64), torch.zeros(0, 6 * len(levels), dtype=torch.float64)
    turn_spread, gap_spread = math.radians(settings.prior_deg), settings.prior_mm
    pose = torch.stack([poses[level] for level in order])
    centre = torch.stack([scene.parts[level].centre for level in order])
    middle = (centre[:-1] + centre[1:]) / 2
    turned, shift = pose[:, :3, :3], pose[:, :3, 3]
    a, b = turned[:-1], turned[1:]
    turn = roma.rotmat_to_rotvec(a.mT @ b)
    gap = ((a - b) @ middle[:, :, None])[:, :, 0] + shift[:-1] - shift[1:]
    cross, eye = cross_matrix(turn), torch.eye(3, dtype=torch.float64)
    square = cross @ cross / 12
    by_upper, by_lower = torch.zeros(2, len(turn), 6, 6, dtype=torch.float64)
    by_upper[:, :3, :3] = -(eye - cross / 2 + square) / turn_spread
    by_lower[:, :3, :3] = (eye + cross / 2 + square) / turn_spread
    by_upper[:, 3:, :3] = -a @ cross_matrix(middle - centre[:-1]) / gap_spread
    by_lower[:, 3:, :3] = b @ cross_matrix(middle - centre[1:]) / gap_spread
    by_upper[:, 3:, 3:], by_lower[:, 3:, 3:] = a / gap_spread, -b / gap_spread
    by_pose = torch.zeros(len(turn), 6, len(levels), 6, dtype=torch.float64)
    joint, place = torch.arange(len(turn)), torch.tensor([levels.index(level) for level in order])
    by_pose[joint, :, place[:-1]], by_pose[joint, :, place[1:]] = by_upper, by_lower
    residuals = torch.stack([turn / turn_spread, gap / gap_spread], dim=1)
    return residuals.flatten(), by_pose.view(-1, 6 * len(levels))
