"""The objective of refinement as least squares: correlations of gradient images, and the prior on relative motion.

One minus a correlation is half the squared distance of two images of zero mean and unit length (both after what the
nuisance explains is taken out), so Gauss-Newton applies. Every pixel's derivative by every pose comes with its
projection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from radgs.config import RefinementSettings
from radgs.geometry import cross_matrix
from radgs.kernels import LEAST_CURVATURE, Box, correlations, gradients
from radgs.projection import DrawnPart
from radgs.registration.cameras import CameraCorrections
from radgs.registration.joints import joint_prior
from radgs.registration.scene import Poses, Scene
from radgs.registration.view import dilated

VISIBLE = 0.01  # a line integral of bone that counts as the vertebra's silhouette
_FEWEST_PIXELS = 50
_NEAR_PX = 4  # of the silhouette, where images are compared

Weights = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Target:
    """What a view is compared with at one blur.

    Attributes:
        gradients: ``[1 + k, 2, H, W]``: of the X-ray and of what soft tissue may add to it, along u and v, times
            ``certainty``.
        certainty: ``[H, W]``: what each pixel counts, see `View.certainty`.
        usable: ``[H, W]`` bool.
        blur_px: theirs, binned pixels.
    """

    gradients: Float[Tensor, "k 2 H W"]
    certainty: Float[Tensor, "H W"]
    usable: Tensor
    blur_px: float


@dataclass(frozen=True)
class NormalEquations:
    """Quadratic model of the loss around some poses.

    There are six parameters a level (turn, shift; see ``Scene``), then six a view where cameras are corrected.

    Attributes:
        loss: sum over levels, views and directions of 1 - correlation, and the priors.
        gradient: ``[p]``.
        hessian: ``[p, p]``, Gauss-Newton.
        similarity: by level and view, mean correlation of the two directions, -1 to 1.
        terms: what was added up, one for each level in each view that shows it.
    """

    loss: float
    gradient: Float64[Tensor, " p"]
    hessian: Float64[Tensor, "p p"]
    similarity: dict[str, dict[str, float]]
    terms: list[Term]


@dataclass(frozen=True)
class Term:
    """One level in one view, along u and v.

    Attributes:
        view: its name.
        weight: of the term in the loss.
        own: the level's among all parameters.
        value: ``[2]``, its correlations.
        hessian: ``[2, q, q]``, Gauss-Newton, by the levels in the view.
        by_all: ``[q, p]``, derivative of those levels' parameters by all.
        jacobian: ``[2, 6, n]``, by the level's own parameters.
        residual: ``[2, n]``.
        pixels: ``[n, 2]``, row and column in the view.
    """

    view: str
    weight: float
    own: slice
    value: Float64[Tensor, " 2"]
    hessian: Float64[Tensor, "2 q q"]
    by_all: Float64[Tensor, "q p"]
    jacobian: Float[Tensor, "2 6 n"]
    residual: Float[Tensor, "2 n"]
    pixels: Int64[Tensor, "n 2"]

    @property
    def curvature(self) -> Float64[Tensor, "p p"]:
        """``[p, p]``, J^T J of all parameters, summed over both directions."""
        summed = (self.hessian / self.value.clamp_min(LEAST_CURVATURE)[:, None, None]).sum(0)
        return self.by_all.T @ summed @ self.by_all


def normal_equations(
    scene: Scene,
    poses: Poses,
    targets: Mapping[str, Target],
    settings: RefinementSettings,
    prior_weight: float,
    cameras: CameraCorrections | None = None,
    weights: Weights | None = None,
    *,
    joints_let_go: bool = False,
) -> NormalEquations:
    """The loss at ``poses`` and its quadratic model.

    Args:
        scene: X-rays and vertebrae.
        poses: by level, world_from_ct.
        targets: by view.
        settings: step along rays and the prior's spreads.
        prior_weight: of the priors against the correlations.
        cameras: corrections that are parameters too; absent: cameras are right.
        weights: by level and view, of the correlations; 1 where absent.
        joints_let_go: whether the prior hardly holds joints that are bent far, see `joint_prior`.
    """
    levels = list(poses)
    seen = cameras.apply(scene) if cameras else scene
    of_poses = 6 * len(levels)
    count = of_poses + (cameras.amount.numel() if cameras else 0)
    gradient = torch.zeros(count, dtype=torch.float64)
    hessian = torch.zeros(count, count, dtype=torch.float64)
    similarity: dict[str, dict[str, float]] = {level: {} for level in levels}
    terms = []
    loss = 0.0
    margin = 4 + math.ceil(3 * max(target.blur_px for target in targets.values()))
    for number, (name, shown) in enumerate(seen.draw(poses, settings.step_mm, margin).items()):
        drawn = _Drawn.of(shown, targets[name])
        found = correlations(drawn.images, drawn.windows, targets[name].gradients, drawn.pixels)
        at = (6 * torch.tensor(drawn.rows, dtype=torch.long)[:, None] + torch.arange(6)).flatten()
        by_all = torch.eye(of_poses, count, dtype=torch.float64)[at]
        if cameras and drawn.rows:
            first = of_poses + 6 * number
            by_all[:, first : first + 6] = cameras.by_amount(scene, poses, [levels[row] for row in drawn.rows])
        weight = [(weights or {}).get(levels[row], {}).get(name, 1.0) for row in drawn.rows]
        by_row = torch.tensor(weight, dtype=torch.float64)
        gradient += by_all.T @ torch.einsum("r,rdp->p", by_row, found.gradient)
        hessian += by_all.T @ torch.einsum("r,rdpq->pq", by_row, found.hessian) @ by_all
        for i, row in enumerate(drawn.rows):
            if not len(drawn.pixels[i]):
                continue
            values = found.value[i]
            loss += weight[i] * float((1 - values).sum())
            similarity[levels[row]][name] = float(values.mean())
            own, quadratic = slice(6 * row, 6 * row + 6), (values, found.hessian[i], by_all)
            terms.append(Term(name, weight[i], own, *quadratic, found.jacobian[i], found.residual[i], drawn.pixels[i]))
    if prior_weight:
        of_joints = joint_prior(scene, poses, settings, lets_go=joints_let_go)
        loss += prior_weight * of_joints.loss
        gradient[:of_poses] += prior_weight * of_joints.gradient
        hessian[:of_poses, :of_poses] += prior_weight * of_joints.hessian
        if cameras:
            corrected = cameras.amount.flatten()
            loss += prior_weight * float(corrected @ corrected)
            gradient[of_poses:] += 2 * prior_weight * corrected
            hessian.diagonal()[of_poses:] += 2 * prior_weight
    return NormalEquations(loss, gradient, hessian, similarity, terms)


@dataclass(frozen=True)
class _Drawn:
    """A view's prediction, blurred and differentiated, by visible level.

    Attributes:
        rows: of the levels among all.
        windows: that they are drawn in.
        images: ``[7, 2, h, w]``: the image and its six derivatives, along u and v, times the target's certainty.
        pixels: ``[n, 2]``, row and column of what is compared: near the silhouette; none where that is too few.
    """

    rows: list[int]
    windows: list[Box]
    images: list[Float[Tensor, "7 2 h w"]]
    pixels: list[Int64[Tensor, "n 2"]]

    @classmethod
    def of(cls, shown: Sequence[tuple[int, DrawnPart]], target: Target) -> _Drawn:
        pixels = []
        for _, part in shown:
            y0, y1, x0, x1 = part.window
            near = dilated((part.image[0] > VISIBLE).float(), _NEAR_PX) > 0
            at = torch.nonzero(near & target.usable[y0:y1, x0:x1])
            pixels.append((at if len(at) >= _FEWEST_PIXELS else at[:0]) + torch.tensor([y0, x0]))
        images = [gradients(part.image, target.blur_px) * _inside(part.window, target.certainty) for _, part in shown]
        return cls([row for row, _ in shown], [part.window for _, part in shown], images, pixels)


def _inside(window: Box, image: Float[Tensor, "H W"]) -> Float[Tensor, "h w"]:
    y0, y1, x0, x1 = window
    return image[y0:y1, x0:x1]


def body_from_levels(centres: Sequence[Float64[Tensor, " 3"]]) -> Float64[Tensor, "p 6"]:
    """Derivative of every level's parameters by those of a motion of all, about their common centre (CT, mm)."""
    middle = torch.stack(list(centres)).mean(dim=0)
    blocks = []
    for centre in centres:
        block = torch.eye(6, dtype=torch.float64)
        block[3:, :3] = -cross_matrix(centre - middle)
        blocks.append(block)
    return torch.cat(blocks)
