"""The objective of refinement as least squares: correlations of gradient images, and the prior on relative motion.

One minus a correlation is half the squared distance of two images of zero mean and unit length (both after what the
nuisance explains is taken out), so Gauss-Newton applies. Every pixel's derivative by every pose comes with its
projection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import roma
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from radgs.anatomy import cranio_caudal
from radgs.config import RefinementSettings
from radgs.geometry import cross_matrix
from radgs.kernels import gradients
from radgs.registration.correlation import Correlation, correlation, outlier_weights
from radgs.registration.scene import Box, Scene
from radgs.registration.view import View, dilated

VISIBLE = 0.01  # a line integral of bone that counts as the vertebra's silhouette
_FEWEST_PIXELS = 50
_NEAR_PX = 4  # of the silhouette, where images are compared

Poses = dict[str, Float64[Tensor, "4 4"]]


@dataclass(frozen=True)
class Target:
    """What a view is compared with at one blur.

    Attributes:
        gradients: ``[1 + k, 2, H, W]``: of the X-ray and of what soft tissue may add to it, along u and v.
        usable: ``[H, W]`` bool.
    """

    gradients: Float[Tensor, "k 2 H W"]
    usable: Tensor


@dataclass(frozen=True)
class NormalEquations:
    """Quadratic model of the loss around some poses; six parameters a level (turn, shift; see ``Scene``).

    Attributes:
        loss: sum over levels, views and directions of 1 - correlation, and the prior.
        gradient: ``[6 L]``.
        hessian: ``[6 L, 6 L]``, Gauss-Newton.
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
    """One level in one view.

    Attributes:
        parameters: ``[p]``, those of all levels that show where the level does, among all parameters.
        own: those of the level among ``parameters``.
        correlations: along u and v.
        pixels: ``[n, 2]``, row and column in the view.
    """

    parameters: Tensor
    own: slice
    correlations: list[Correlation]
    pixels: Tensor


def normal_equations(
    scene: Scene,
    poses: Poses,
    targets: Mapping[str, Target],
    sigma_px: float,
    settings: RefinementSettings,
    prior_weight: float,
) -> NormalEquations:
    """The loss at ``poses`` and its quadratic model.

    Args:
        scene: X-rays and vertebrae.
        poses: by level, world_from_ct.
        targets: by view.
        sigma_px: blur, binned pixels.
        settings: step along rays and the prior's spreads.
        prior_weight: of the prior against the correlations.
    """
    levels = list(poses)
    gradient = torch.zeros(6 * len(levels), dtype=torch.float64)
    hessian = torch.zeros(6 * len(levels), 6 * len(levels), dtype=torch.float64)
    similarity: dict[str, dict[str, float]] = {level: {} for level in levels}
    terms = []
    loss = 0.0
    for name, view in scene.views.items():
        drawn = _draw(scene, view, poses, sigma_px, settings.step_mm)
        target = drawn.cut(targets[name].gradients).flatten(2)
        for row, near in drawn.near.items():
            usable = near & drawn.cut(targets[name].usable)
            if int(usable.sum()) < _FEWEST_PIXELS:
                continue
            where = torch.nonzero(usable)
            at = where @ torch.tensor([usable.shape[1], 1])
            touching, pixels = drawn.at(at)
            seen = target.index_select(2, at)  # [1 + k, 2, n]
            jacobian = pixels[:, 1:].flatten(0, 1)
            parameters = drawn.parameters.view(-1, 6)[touching].flatten()
            found = []
            for axis in range(2):
                moving = pixels[:, 0, axis].sum(dim=0)
                still, soft = seen[0, axis], seen[1:, axis]
                weights = outlier_weights(moving, still, soft)
                found.append(correlation(moving, jacobian[:, axis], still, soft, weights))
                gradient[parameters] += found[-1].gradient
                hessian[parameters[:, None], parameters] += found[-1].hessian
                loss += 1 - found[-1].value
            similarity[levels[row]][name] = (found[0].value + found[1].value) / 2
            first = 6 * touching.index(list(drawn.near).index(row))
            there = where + torch.tensor(drawn.box)[[0, 2]]
            terms.append(Term(parameters, slice(first, first + 6), found, there))
    if prior_weight:
        residual, by_pose = prior_residuals(scene, poses, settings)
        loss += prior_weight * float(residual @ residual)
        gradient += 2 * prior_weight * by_pose.T @ residual
        hessian += 2 * prior_weight * by_pose.T @ by_pose
    return NormalEquations(loss, gradient, hessian, similarity, terms)


@dataclass(frozen=True)
class _Drawn:
    """A view's prediction, blurred and differentiated, in the window around all visible vertebrae.

    Attributes:
        box: the window.
        images: ``[L', 7, 2, h, w]``: each visible level's image and its six derivatives, along u and v.
        parameters: of the visible levels among all parameters.
        near: by row of the level among all levels, ``[h, w]`` bool: near its silhouette.
    """

    box: Box
    images: Float[Tensor, "L 7 2 h w"]
    parameters: Tensor
    near: dict[int, Tensor]

    def cut(self, image: Tensor) -> Tensor:
        y0, y1, x0, x1 = self.box
        return image[..., y0:y1, x0:x1]

    def at(self, pixels: Tensor) -> tuple[list[int], Float[Tensor, "l 7 2 n"]]:
        """Which visible levels show at some of the pixels (``[n]``, row by row), and their images there."""
        flat = self.images.flatten(3)
        touching = [i for i, level in enumerate(flat) if bool(level[0, 0].index_select(0, pixels).any())]
        return touching, torch.stack([flat[i].index_select(2, pixels) for i in touching])


def _draw(scene: Scene, view: View, poses: Poses, sigma_px: float, step_mm: float) -> _Drawn:
    margin = 4 + math.ceil(3 * sigma_px)
    rows, parts, silhouettes = [], [], []
    for row, (level, pose) in enumerate(poses.items()):
        found = scene.parts[level].draw_with_jacobian(view, pose, step_mm, margin)
        if found is not None:
            window, image = found
            rows.append(row)
            silhouettes.append((window, dilated((image[0] > VISIBLE).float(), _NEAR_PX) > 0))
            parts.append((window, gradients(image, sigma_px)))
    if not rows:
        return _Drawn((0, 0, 0, 0), torch.zeros(0, 7, 2, 0, 0), torch.zeros(0, dtype=torch.long), {})
    windows = torch.tensor([window for window, _ in parts])
    y0, x0 = (int(windows[:, i].min()) for i in (0, 2))
    y1, x1 = (int(windows[:, i].max()) for i in (1, 3))
    images = torch.zeros(len(rows), 7, 2, y1 - y0, x1 - x0)
    near = {}
    for i, (row, (window, image), (_, silhouette)) in enumerate(zip(rows, parts, silhouettes, strict=True)):
        a, b, c, d = window[0] - y0, window[1] - y0, window[2] - x0, window[3] - x0
        images[i, :, :, a:b, c:d] = image
        whole = torch.zeros(y1 - y0, x1 - x0, dtype=torch.bool)
        whole[a:b, c:d] = silhouette
        near[row] = whole
    parameters = (6 * torch.tensor(rows)[:, None] + torch.arange(6)).flatten()
    return _Drawn((y0, y1, x0, x1), images, parameters, near)


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


def body_from_levels(centres: Sequence[Float64[Tensor, " 3"]]) -> Float64[Tensor, "p 6"]:
    """Derivative of every level's parameters by those of a motion of all, about their common centre (CT, mm)."""
    middle = torch.stack(list(centres)).mean(dim=0)
    blocks = []
    for centre in centres:
        block = torch.eye(6, dtype=torch.float64)
        block[3:, :3] = -cross_matrix(centre - middle)
        blocks.append(block)
    return torch.cat(blocks)
