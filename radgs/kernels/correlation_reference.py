"""How alike two gradient images are: correlation without what nuisances explain, and with doubts about outliers.

The definition, one image at a time, of what `radgs.kernels.correlations` does for all parts of an X-ray.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

ROBUST_STEPS, OUTLIER = 3, 2.5
RIDGE = 1e-4
LEAST_DEVIATION = 0.02  # of the image's own: no fit is so exact that its rounding tells outliers
LEAST_CURVATURE = 0.1


class Correlation(NamedTuple):
    """A correlation, and one minus it as least squares in some parameters.

    Attributes:
        value: -1 to 1.
        gradient: ``[p]``, of one minus the correlation: minus ``jacobian @ residual``.
        hessian: ``[p, p]``, Gauss-Newton.
        jacobian: ``[p, n]``, of the normalised moving image.
        residual: ``[n]``, of the normalised still image: what no change of the moving one's scale explains.
    """

    value: float
    gradient: Float64[Tensor, " p"]
    hessian: Float64[Tensor, "p p"]
    jacobian: Float[Tensor, "p n"]
    residual: Float[Tensor, " n"]


def correlation(
    moving: Float[Tensor, " n"],
    jacobian: Float[Tensor, "p n"],
    still: Float[Tensor, " n"],
    nuisances: Float[Tensor, "k n"],
    weights: Float[Tensor, " n"],
) -> Correlation:
    """Weighted correlation without mean and nuisances; gradient and Gauss-Newton Hessian of one minus it.

    Where images fit partly, the loss is as much flatter than the plain Gauss-Newton Hessian as the correlation is below
    one: what is noise to the model pulls nowhere.
    """
    stacked = torch.cat([nuisances, moving[None], still[None], jacobian])
    stacked = (stacked - (stacked @ weights)[:, None] / weights.sum()) * weights.sqrt()
    m, s, *rest = _without(stacked[: len(nuisances)], stacked[len(nuisances) :])
    j = torch.stack(rest)
    length = m.norm().clamp_min(1e-6)
    m, s = m / length, s / s.norm().clamp_min(1e-6)
    j = (j - (j @ m)[:, None] * m) / length
    ncc = float(m @ s)
    hessian = max(ncc, LEAST_CURVATURE) * (j @ j.T).double()
    return Correlation(ncc, -(j @ s).double(), hessian, j, s - ncc * m)


def _without(nuisances: Float[Tensor, "k n"], images: Float[Tensor, "q n"]) -> Float[Tensor, "q n"]:
    """What is left of images after the nuisances that explain most of each."""
    gram = (nuisances @ nuisances.T).double()
    gram += torch.diag(RIDGE * gram.diagonal() + 1e-9)
    strengths = torch.linalg.solve(gram, (nuisances @ images.T).double())
    return images - strengths.T.to(images.dtype) @ nuisances


def outlier_weights(
    moving: Float[Tensor, " n"], still: Float[Tensor, " n"], nuisances: Float[Tensor, "k n"]
) -> Float[Tensor, " n"]:
    """One, but small where images differ more than they usually do: edges in one of them only (Cauchy's weights)."""
    stacked = torch.cat([nuisances, moving[None], still[None]])
    stacked = stacked - stacked.mean(dim=1, keepdim=True)
    m, s = _without(stacked[:-2], stacked[-2:])
    weights = torch.ones_like(m)
    for _ in range(ROBUST_STEPS):
        strength = (weights * m) @ s / ((weights * m) @ m + 1e-9)
        residual = s - strength * m
        deviation = 1.4826 * residual.abs().median() + LEAST_DEVIATION * s.norm() / len(s) ** 0.5 + 1e-9
        weights = 1 / (1 + (residual / (OUTLIER * deviation)) ** 2)
    return weights
