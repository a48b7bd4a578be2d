"""Where Gaussians are cut: at the same number of standard deviations, or where each no longer matters."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from radgs.errors import RadgsError
from radgs.kernels import LARGEST_CUTOFF


def cutoffs(peaks: Float[Tensor, "*batch N"], cutoff: float, max_error: float | None) -> Float[Tensor, "*batch N"]:
    """Cut-off of each Gaussian in standard deviations; 0 leaves it out.

    Args:
        peaks: the most that each Gaussian adds anywhere, in absolute value.
        cutoff: for all, used when there is no ``max_error``.
        max_error: in the unit of ``peaks``; a Gaussian is cut where it adds less than this.

    Returns:
        Without gradient; at most 10, where a Gaussian has fallen to 2e-22 of its peak.

    Raises:
        RadgsError: a cut-off out of range, or an error that is not positive.
    """
    peaks = peaks.detach().abs()
    if max_error is None:
        if not 0 < cutoff <= LARGEST_CUTOFF:
            raise RadgsError(f"cutoff is in standard deviations, above 0 and at most {LARGEST_CUTOFF:g}, got {cutoff}")
        return torch.full_like(peaks, cutoff)
    if not 0 < max_error < float("inf"):
        raise RadgsError(f"max_error must be positive and finite, got {max_error}")
    return (2 * (peaks / max_error).log()).clamp(0, LARGEST_CUTOFF**2).sqrt()
