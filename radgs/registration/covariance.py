"""How far noise in the X-rays may have moved a refined pose: the covariance of the Levenberg-Marquardt solution.

At the optimum the gradient of the loss is zero. Had the noise been another, it would not be, and the pose would have
moved by the inverse Hessian times that gradient. So the covariance is the inverse Hessian on both sides of the
gradient's own covariance (Huber 1967), which is that of the normal equations scaled by the residuals: the scale comes
from sums over blocks of pixels, because residuals of neighbouring pixels are alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from radgs.geometry import RigidTransform
from radgs.registration.normal_equations import NormalEquations, Term

_BLOCK_PX = 24  # some 20 mm: what is further apart is taken as independent


@dataclass(frozen=True)
class PoseCovariance:
    """Spread of a pose about its true value as far as noise in the X-rays makes it.

    It holds noise and what the model does not explain, as far as either varies from one block of pixels to the next,
    and where cameras are corrected errors of the calibration as their prior expects them. It does **not** hold: a wrong
    optimum, errors of a calibration that is taken as right, of the CT or of its labels, the pull of the prior towards
    the CT's spacing, and anything that is wrong alike all over the vertebra.

    Attributes:
        matrix: ``[6, 6]``: a turn about ``centre`` (rotation vector, radians), then a shift (mm), both along the axes
            of the world, that take the estimated pose to the true one.
        centre: ``[3]`` world, mm: the middle of the box around the vertebra.
    """

    matrix: Float64[NDArray, "6 6"]
    centre: Float64[NDArray, " 3"]

    def rms_mm(self, points: ArrayLike) -> float:
        """Root mean square distance by which points ``[N, 3]`` (world, mm) are expected to be off."""
        arm = np.asarray(points, dtype=np.float64) - self.centre
        x, y, z = arm.T
        zero = np.zeros_like(x)
        by_turn = np.array([[zero, z, -y], [-z, zero, x], [y, -x, zero]])  # of omega x arm, by omega
        by_motion = np.concatenate([by_turn, np.broadcast_to(np.eye(3)[:, :, None], by_turn.shape)], axis=1)
        return float(np.sqrt(np.einsum("ipn,pq,iqn->n", by_motion, self.matrix, by_motion).mean()))

    def to_json(self) -> dict[str, Any]:
        """As it is written to ``verdict.json``."""
        return {
            "about": "turn about centre_mm (rotation vector, rad), then shift (mm); axes of the world",
            "order": ["turn_x", "turn_y", "turn_z", "shift_x", "shift_y", "shift_z"],
            "centre_mm": self.centre.tolist(),
            "matrix": self.matrix.tolist(),
        }


def pose_covariances(
    optimum: NormalEquations,
    world_from_ct: Mapping[str, RigidTransform],
    centres: Mapping[str, NDArray[np.float64]],
    prior_weight: float,
) -> dict[str, PoseCovariance]:
    """The covariance of each level that at least one view shows.

    Args:
        optimum: normal equations at the refined poses, six parameters a level, then those of cameras.
        world_from_ct: the refined poses, in the order of the parameters.
        centres: by level, ``[3]`` CT, mm, about which the parameters turn.
        prior_weight: with which the prior holds the cameras' parameters, whose standard deviations it takes to be 1.
    """
    shown = [row for row, level in enumerate(world_from_ct) if optimum.similarity[level]]
    cameras = torch.arange(6 * len(world_from_ct), len(optimum.hessian))
    levels = (6 * torch.tensor(shown, dtype=torch.long)[:, None] + torch.arange(6)).flatten()
    parameters = torch.cat([levels, cameras])
    scatter = torch.zeros_like(optimum.hessian)
    scatter[cameras, cameras] = (2 * prior_weight) ** 2
    for term in optimum.terms:
        scatter += term.weight**2 * gradient_covariance(term)
    inverse = torch.linalg.pinv(optimum.hessian[parameters[:, None], parameters], hermitian=True)
    covariance = (inverse @ scatter[parameters[:, None], parameters] @ inverse).numpy()
    found = {}
    for i, row in enumerate(shown):
        level = list(world_from_ct)[row]
        pose, own = world_from_ct[level], slice(6 * i, 6 * i + 6)
        turned = np.kron(np.eye(2), pose.rotation)  # the parameters are along the CT's axes
        found[level] = PoseCovariance(turned @ covariance[own, own] @ turned.T, pose.apply(centres[level]))
    return found


def gradient_covariance(term: Term) -> Float64[Tensor, "p p"]:
    """Covariance of a term's gradient: J^T J times the variance that residuals would have if they were independent.

    They are not: blurred noise, and what the model lacks, are alike over many pixels. So the variance is the one with
    which independent sums of the gradient over blocks of pixels would scatter as they do. A fit takes part of the
    residuals away, the more the fewer blocks hold a parameter; of independent residuals ``left`` parameters' worth
    would remain (the trace of what the hat matrix leaves in each block).
    """
    block = term.pixels // _BLOCK_PX
    numbers, which = torch.unique(block[:, 0] * (block[:, 1].max() + 1) + block[:, 1], return_inverse=True)
    sums = torch.zeros(len(numbers), 6)
    grams = torch.zeros(len(numbers), 6, 6)
    for jacobian, residual in zip(term.jacobian, term.residual, strict=True):
        own = jacobian.T
        sums.index_add_(0, which, own * residual[:, None])
        grams.index_add_(0, which, own[:, :, None] * own[:, None])
    total = term.curvature
    inverse = torch.linalg.pinv(total[term.own, term.own], hermitian=True)
    shares = inverse @ grams.double()
    left = 6 - float(torch.einsum("bij,bji->", shares, shares))
    scattered = torch.einsum("bi,ij,bj->", sums.double(), inverse, sums.double())
    return total * float(scattered) / max(left, 1.0)
