"""The prior on joints: neighbours lie to each other about as in the CT.

It may be Cauchy's: a joint that is bent as expected is held as by a Gaussian's, one that is bent far more hardly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

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
    residuals, by_pose = [], []
    turn_spread, gap_spread = math.radians(settings.prior_deg), settings.prior_mm
    for upper, lower in pairwise(order):
        middle = (scene.parts[upper].centre + scene.parts[lower].centre) / 2
        a, b = poses[upper][:3, :3], poses[lower][:3, :3]
        turn = roma.rotmat_to_rotvec(a.T @ b)
        gap = a @ middle + poses[upper][:3, 3] - b @ middle - poses[lower][:3, 3]
        residuals += [turn / turn_spread, gap / gap_spread]
        block = torch.zeros(6, 6 * len(levels), dtype=torch.float64)
        cross, eye = cross_matrix(turn), torch.eye(3, dtype=torch.float64)
        i, j = 6 * levels.index(upper), 6 * levels.index(lower)
        block[:3, i : i + 3] = -(eye - cross / 2 + cross @ cross / 12) / turn_spread
        block[:3, j : j + 3] = (eye + cross / 2 + cross @ cross / 12) / turn_spread
        block[3:, i : i + 3] = -a @ cross_matrix(middle - scene.parts[upper].centre) / gap_spread
        block[3:, i + 3 : i + 6] = a / gap_spread
        block[3:, j : j + 3] = b @ cross_matrix(middle - scene.parts[lower].centre) / gap_spread
        block[3:, j + 3 : j + 6] = -b / gap_spread
        by_pose.append(block)
    if not residuals:
        return torch.zeros(0, dtype=torch.float64), torch.zeros(0, 6 * len(levels), dtype=torch.float64)
    return torch.cat(residuals), torch.cat(by_pose)
