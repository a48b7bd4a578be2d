"""What is minimised: small functions, then their sums in RecM and RegM."""

from __future__ import annotations

from collections.abc import Mapping

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from radgs.config import LossSettings
from radgs.models import raw_density

_SSIM_WINDOW = {2: 7, 3: 5}
_TINY = 1e-8
_CHAMFER_ROWS = 4096
# What is typical of one vertebra, so that the terms are of order one and their published weights keep their meaning.
INTEGRAL_RANGE = 0.5  # line integral of the excess of one vertebra
ATTENUATION_RANGE = 0.03  # 1/mm of its excess
ANCHOR_UNIT_MM = 10.0
EMPTY = 2e-4  # 1/mm, as good as nothing


def l1(a: Float[Tensor, "*any"], b: Float[Tensor, "*any"]) -> Float[Tensor, ""]:
    """Mean absolute difference, in the unit of the input."""
    return (a - b).abs().mean()


def dissimilarity(a: Float[Tensor, "B *size"], b: Float[Tensor, "B *size"], data_range: float) -> Float[Tensor, ""]:
    """1 - SSIM of images ``[B, H, W]`` or volumes ``[B, D, H, W]`` with a Gaussian window (Wang et al. 2004, MONAI)."""
    from monai.losses import SSIMLoss  # takes seconds, and is not needed by whoever only imports this package

    dims = a.ndim - 1
    loss = SSIMLoss(spatial_dims=dims, data_range=data_range, win_size=_SSIM_WINDOW[dims])
    return loss(a[:, None], b[:, None])


def total_variation(volume: Float[Tensor, "B D H W"]) -> Float[Tensor, ""]:
    """Mean absolute difference of neighbours, summed over the three axes (anisotropic; Rudin et al. 1992)."""
    return sum((volume.diff(dim=d).abs().mean() for d in (1, 2, 3)), start=volume.new_zeros(()))


def ncc3d(a: Float[Tensor, "B D H W"], b: Float[Tensor, "B D H W"]) -> Float[Tensor, ""]:
    """1 - normalised cross-correlation over the whole volume, mean over the batch: 0 equal, 2 opposite."""
    a, b = a.flatten(1), b.flatten(1)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norm = (a.square().sum(1) * b.square().sum(1) + _TINY**2).sqrt()
    return (1 - (a * b).sum(1) / norm).mean()


def geodesic(a: Float[Tensor, "B 4 4"], b: Float[Tensor, "B 4 4"]) -> Float[Tensor, ""]:
    """Mean angle between the rotations of two sets of transforms, radians (Huynh 2009, Phi 6)."""
    return roma.rotmat_geodesic_distance(a[:, :3, :3], b[:, :3, :3]).mean()


def point_errors(
    a: Float[Tensor, "B 4 4"], b: Float[Tensor, "B 4 4"], points: Float[Tensor, "B P 3"]
) -> Float[Tensor, " B"]:
    """Mean distance of points under two transforms, mm: mTRE when one of them is the truth."""
    difference = a - b
    offset = points.to(difference.dtype) @ difference[:, :3, :3].mT + difference[:, None, :3, 3]
    return (offset.square().sum(-1) + _TINY).sqrt().mean(-1)


def anchor_distance(
    a: Float[Tensor, "B 4 4"], b: Float[Tensor, "B 4 4"], points: Float[Tensor, "B P 3"]
) -> Float[Tensor, ""]:
    """Mean distance of anchors under two transforms, mm.

    Its gradient does not fade with distance, as that of image and volume differences does beyond a few mm. This
    project's; not in RadGS-Reg.
    """
    return point_errors(a, b, points).mean()


def chamfer(a: Float[Tensor, "B N 3"], b: Float[Tensor, "B M 3"]) -> Float[Tensor, ""]:
    """Mean distance from each point to the nearest of the other set, both ways added, mm (Barrow et al. 1977).

    Nothing of size N x M is kept for the gradient.
    """
    ways = []
    for points, others in ((a, b), (b, a)):
        nearest = others.gather(1, _nearest(points, others)[..., None].expand(-1, -1, 3))
        ways.append(((points - nearest).square().sum(-1) + _TINY).sqrt().mean())
    return ways[0] + ways[1]


@torch.no_grad()
def _nearest(points: Float[Tensor, "B N 3"], others: Float[Tensor, "B M 3"]) -> Int[Tensor, "B N"]:
    exact = "donot_use_mm_for_euclid_dist"
    parts = [torch.cdist(some, others, compute_mode=exact).argmin(-1) for some in points.split(_CHAMFER_ROWS, dim=1)]
    return torch.cat(parts, dim=1)


def balanced_l1(volume: Float[Tensor, "B D H W"], target: Float[Tensor, "B D H W"]) -> Float[Tensor, ""]:
    """Mean absolute error inside the vertebra plus that outside it.

    A vertebra fills a few percent of its cube: in a plain mean an empty volume is hard to beat.
    """
    error, bone = (volume - target).abs(), (target > 0).to(volume.dtype)
    inside = (error * bone).sum() / bone.sum().clamp_min(1)
    return (inside + (error * (1 - bone)).sum() / (1 - bone).sum().clamp_min(1)) / 2


def density_distance(densities: Float[Tensor, "B N"], target: Float[Tensor, "B N"]) -> Float[Tensor, ""]:
    """Mean distance of the anchors' densities from those of the vertebra where they lie, in their raw space.

    Anchors inside the vertebra weigh as much as those outside. In raw space the gradient does not fade for anchors
    that have become almost empty, as that of image and volume differences does: with those alone a grid dies out.

    Args:
        densities: 1/mm, of anchors on a regular grid, each of which fills its own cell.
        target: 1/mm, the vertebra's excess at the anchors.
    """
    bone = target > EMPTY
    over = raw_density(densities, smallest=_TINY**2) - raw_density(target.clamp_min(EMPTY))
    error = torch.where(bone, over.abs(), over.clamp_min(0))
    inside = error[bone].sum() / bone.sum().clamp_min(1)
    return (inside + error[~bone].sum() / (~bone).sum().clamp_min(1)) / 2


def reconstruction_loss(
    images: Mapping[str, Float[Tensor, "B V h w"]],
    volumes: Mapping[str, Float[Tensor, "B D H W"]],
    target_images: Float[Tensor, "B V h w"],
    target_volume: Float[Tensor, "B D H W"],
    weights: LossSettings,
) -> dict[str, Float[Tensor, ""]]:
    """L_CAL-rec of RadGS-Reg: L1 + 0.2 (1 - SSIM) + 0.05 TV of every branch, and a balanced volume L1 of this project.

    A term of weight 0 is left out, here as in :func:`registration_loss`.

    Args:
        images: by branch (``effect``, ``factual``), line integrals of the Gaussians.
        volumes: by branch, the Gaussians on a grid, 1/mm.
        target_images: line integrals of the vertebra's excess alone.
        target_volume: the vertebra's excess at its true pose, 1/mm.
        weights: of the terms.

    Returns:
        Weighted terms by name; their sum is the loss.
    """
    terms = {}
    for branch, drawn in images.items():
        volume = volumes[branch]
        terms[f"{branch}.image"] = l1(drawn, target_images) / INTEGRAL_RANGE
        terms[f"{branch}.ssim"] = weights.ssim * dissimilarity(
            drawn.flatten(0, 1), target_images.flatten(0, 1), INTEGRAL_RANGE
        )
        terms[f"{branch}.tv"] = weights.tv * total_variation(volume) / ATTENUATION_RANGE
        if weights.volume:
            terms[f"{branch}.volume"] = weights.volume * balanced_l1(volume, target_volume) / ATTENUATION_RANGE
    return terms


def registration_loss(
    warped_ct: Float[Tensor, "B D H W"],
    reconstruction: Float[Tensor, "B D H W"],
    estimate: Float[Tensor, "B 4 4"],
    truth: Float[Tensor, "B 4 4"],
    points: Float[Tensor, "B P 3"],
    weights: LossSettings,
) -> dict[str, Float[Tensor, ""]]:
    """L_reg of RadGS-Reg, NCC3D + SSIM3D + 0.02 geodesic, and the anchors' distance for reach.

    Args:
        warped_ct: the CT moved by ``estimate``, 1/mm.
        reconstruction: RecM's, 1/mm.
        estimate: crop_from_vertebra, mm.
        truth: crop_from_vertebra, mm.
        points: of the vertebra, vertebra frame, mm.
        weights: of the terms.

    Returns:
        Weighted terms by name; their sum is the loss.
    """
    terms = {
        "ncc": ncc3d(warped_ct, reconstruction),
        "ssim": dissimilarity(warped_ct, reconstruction, ATTENUATION_RANGE),
        "geodesic": weights.geodesic * geodesic(estimate, truth).float(),
    }
    if weights.anchor:
        terms["anchor"] = weights.anchor * anchor_distance(estimate, truth, points).float() / ANCHOR_UNIT_MM
    return terms


def total(terms: Mapping[str, Tensor]) -> Float[Tensor, ""]:
    """The sum of the terms."""
    return torch.stack(list(terms.values())).sum()
