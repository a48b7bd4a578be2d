"""What no CT explains: instruments that the search in the image alone did not find.

Heads of screws are as wide as pedicles; seen beside what the CT predicts, they stand out.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter
from skimage.filters import apply_hysteresis_threshold
from torch import Tensor

from radgs.registration.view import View, dilated

_AROUND_MM = 8.0  # the difference's slow part (scatter, tissue) reaches so far
_SEED, _LEAST_SEED = 6.0, 0.4  # standard deviations; line integral
_GROWN, _LEAST_GROWN = 3.0, 0.2
_MARGIN_MM = 2.0
_STEPS, _OUTLIER = 5, 2.0
_FEWEST = 500


def find_foreign(
    view: View, bones: Float[Tensor, "H W"], soft: Float[Tensor, "H W"], near: Bool[Tensor, "H W"]
) -> Bool[Tensor, "H W"]:
    """Pixels that are much darker on film than vertebrae and soft tissue make them.

    Args:
        view: the X-ray.
        bones: line integrals of the vertebrae at about their poses.
        soft: of all else that the CT holds.
        near: where to look.
    """
    where = view.measured & near
    if int(where.sum()) < _FEWEST:
        return torch.zeros_like(near)
    design = torch.stack([bones, soft, torch.ones_like(bones)], dim=-1)
    difference = view.image - design @ _robust_fit(design[where], view.image[where])
    inside, sigma = where.float(), _AROUND_MM / view.pixel_mm
    parts = torch.stack([difference * inside, inside]).numpy()
    slow = torch.from_numpy(gaussian_filter(parts, (0, sigma, sigma), mode="nearest", truncate=3.0))
    fast = (difference - slow[0] / slow[1].clamp_min(1e-3)) * inside
    deviation = 1.4826 * float(fast[where].abs().median())
    grown, seed = max(_GROWN * deviation, _LEAST_GROWN), max(_SEED * deviation, _LEAST_SEED)
    found = torch.from_numpy(apply_hysteresis_threshold(fast.numpy(), grown, seed))
    return dilated(found.float(), max(round(_MARGIN_MM / view.pixel_mm), 1)) > 0


def _robust_fit(design: Float[Tensor, "n k"], seen: Float[Tensor, " n"]) -> Float[Tensor, " k"]:
    """Least squares with Cauchy's weights."""
    weights = torch.ones_like(seen)
    strengths = torch.zeros(design.shape[1])
    for _ in range(_STEPS):
        root = weights.sqrt()
        strengths = torch.linalg.lstsq(design * root[:, None], (seen * root)[:, None]).solution[:, 0]
        residual = seen - design @ strengths
        deviation = 1.4826 * residual.abs().median().clamp_min(1e-6)
        weights = 1 / (1 + (residual / (_OUTLIER * deviation)) ** 2)
    return strengths
