"""Anchors: the Gaussians that RecM moves and changes, and the raw space in which it changes them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from radgs.config import CropSettings, NetworkSettings
from radgs.gaussians import RadiativeGaussians

RAW_SIZE = 11  # offset 3, log-scale 3, quaternion 4, density 1

# Half axes (left, posterior, superior) of an ellipsoid that holds 96 to 100 % of every thoracic and lumbar vertebra in
# VerSe 004 and four other CTs.
_REACH_MM = (52.0, 48.0, 34.0)
_GRID_DENSITY = 5e-4  # 1/mm, of a blank anchor: all together weigh about as much as a vertebra
_GRID_SCALE = 0.4  # of the spacing: where neighbours are alike, their sum is the density of one
_DENSITY_UNIT = 0.01  # 1/mm, where softplus turns from exponential to linear
_SMALLEST = 1e-4  # of the unit; softplus never gives zero
_MAX_OFFSET_MM = 4.0
_MAX_LOG_SCALE = 0.7


def grid_anchors(settings: NetworkSettings, size_mm: float = CropSettings().size_mm) -> RadiativeGaussians:
    """A regular grid of equal, faint Gaussians where a vertebra can be: it knows nothing of any patient.

    Args:
        settings: ``gaussians`` is about how many there are.
        size_mm: edge of the crop cube, which none leaves.

    Returns:
        No batch, vertebra frame, mm.
    """
    reach = torch.tensor(_REACH_MM).clamp(max=size_mm / 2)
    spacing = float(4 / 3 * torch.pi * reach.prod() / settings.gaussians) ** (1 / 3)
    axes = [torch.arange(-n, n + 1) * spacing for n in (reach / spacing).int().tolist()]
    points = torch.cartesian_prod(*axes)
    means = points[(points / reach).square().sum(-1) <= 1]
    return RadiativeGaussians(
        means,
        torch.full_like(means, _GRID_SCALE * spacing),
        torch.tensor([1.0, 0, 0, 0]).repeat(len(means), 1),
        torch.full((len(means),), _GRID_DENSITY),
    )


def raw_density(densities: Float[Tensor, "*any"], smallest: float = _SMALLEST) -> Float[Tensor, "*any"]:
    """The number whose softplus is the density in units of 0.01/mm; less than ``smallest`` units becomes that."""
    x = (densities / _DENSITY_UNIT).clamp(min=smallest)
    return x + torch.log(-torch.expm1(-x))


def alike_anchors(anchors: RadiativeGaussians) -> Bool[Tensor, " B"]:
    """Whether all anchors of a set have one density: a grid, not Gaussians fitted to a CT."""
    return (anchors.densities.amax(-1) - anchors.densities.amin(-1)) < 1e-9


def describe(anchors: RadiativeGaussians) -> Float[Tensor, "B N 9"]:
    """What the anchor head reads of each anchor's own shape.

    The last number says the kind: 1 when all anchors of the set are alike (a grid), 0 when they were fitted.
    """
    kind = alike_anchors(anchors).to(anchors.means.dtype)[:, None, None].expand(-1, anchors.count, 1)
    quaternions = F.normalize(anchors.quaternions, dim=-1)
    density = raw_density(anchors.densities)[..., None] / 5
    return torch.cat([anchors.scales.log(), quaternions, density, kind], dim=-1)


def changed(
    anchors: RadiativeGaussians, raw: Float[Tensor, "B N 11"], reach_mm: float = _MAX_OFFSET_MM
) -> RadiativeGaussians:
    """Anchors after raw changes; zeros leave them as they are.

    The anchors' own raw parameters are added here, after factual and counterfactual were subtracted from each other:
    they are the same in both and would cancel, and the effect would be Gaussians about the origin.

    Args:
        anchors: ``[B, N]``, mm.
        raw: offset, log-scale, quaternion and density before their activations.
        reach_mm: the largest offset along an axis.
    """
    offset, scale, turn, density = raw.split([3, 3, 4, 1], dim=-1)
    return RadiativeGaussians(
        anchors.means + reach_mm * torch.tanh(offset),
        anchors.scales * torch.exp(_MAX_LOG_SCALE * torch.tanh(scale)),
        F.normalize(F.normalize(anchors.quaternions, dim=-1) + 0.5 * torch.tanh(turn), dim=-1),
        _DENSITY_UNIT * F.softplus(raw_density(anchors.densities) + density[..., 0]),
    )
