"""How far a pose is off, and what a set of such errors says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from radgs.errors import AnatomyError
from radgs.geometry import RigidTransform
from radgs.images import Volume


def target_points(mask: Volume, count: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """The fixed points at which a vertebra's pose is judged, the same in every run.

    Args:
        mask: not 0 inside the vertebra; the patient's label map, at its own resolution.
        count: how many; all voxels if the mask has fewer.
        seed: of the choice.

    Returns:
        ``[count, 3]`` voxel centres, LPS mm of the CT.

    Raises:
        AnatomyError: the mask is empty.
    """
    index = np.argwhere(mask.array)[:, ::-1]
    if not len(index):
        raise AnatomyError("the mask is empty: there is no vertebra at whose points a pose could be judged")
    chosen = np.random.default_rng(seed).choice(index, min(count, len(index)), replace=False)
    return mask.points(chosen)


def target_registration_error(estimated: RigidTransform, truth: RigidTransform, points: ArrayLike) -> float:
    """Mean distance (mTRE, mm) between where two poses put the same points.

    Args:
        estimated: for example ``world_from_ct``.
        truth: the same transform, known.
        points: ``[N, 3]`` mm, in the frame that both map from.
    """
    return float(np.linalg.norm(estimated.apply(points) - truth.apply(points), axis=-1).mean())


def wilson_interval(successes: int, n: int) -> dict[str, float]:
    """A proportion with its 95 % Wilson score interval: ``{value, low, high}``; ``n`` is at least 1."""
    interval = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    return {"value": successes / n, "low": float(interval.low), "high": float(interval.high)}


def success_rate(errors: ArrayLike, threshold: float) -> dict[str, float]:
    """How often an error is below ``threshold``, with its 95 % Wilson interval.

    Args:
        errors: mTRE of each registration, mm; NaN is a registration without a pose, that is a failure.
        threshold: mm.

    Returns:
        ``{value, low, high}``.
    """
    mtre = np.asarray(errors, dtype=np.float64)
    return wilson_interval(int((mtre < threshold).sum()), mtre.size)  # NaN < threshold is False


def summarize(values: ArrayLike) -> dict[str, float | int | None]:
    """``{n, median, mean, sd, p95}`` of the finite values; ``sd`` is the sample's (0 for one value).

    ``n`` is beside the numbers because registrations without a pose have no error to average. With ``n = 0``
    the others are None.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[np.isfinite(x)]
    if not x.size:
        return {"n": 0, "median": None, "mean": None, "sd": None, "p95": None}
    return {
        "n": int(x.size),
        "median": float(np.median(x)),
        "mean": float(x.mean()),
        "sd": float(x.std(ddof=1)) if x.size > 1 else 0.0,
        "p95": float(np.percentile(x, 95)),
    }


@dataclass(frozen=True)
class CaptureRange:
    """From how far away registration still works.

    Attributes:
        mm: upper end of the last bin of start mTRE before success drops below the required rate.
        ended_by: ``success`` if a bin fell short of the rate; ``starts`` if the next bin holds too few starts
            to tell, so that the true range is at least ``mm``.
    """

    mm: float
    ended_by: str


def capture_range(
    start_mtre: ArrayLike,
    success: ArrayLike,
    *,
    bin_mm: float = 1.0,
    minimum_starts: int = 10,
    required: float = 0.95,
) -> CaptureRange:
    """The capture range over bins ``[0, 1), [1, 2), ...`` mm of start mTRE.

    Args:
        start_mtre: ``[N]`` mm.
        success: ``[N]`` whether each registration ended well.
        bin_mm: width of a bin.
        minimum_starts: a bin with fewer proves nothing and ends the range.
        required: share of successes a bin must reach.
    """
    bins = np.floor(np.asarray(start_mtre, dtype=np.float64) / bin_mm).astype(int)
    good = np.asarray(success, dtype=bool)
    for k in range(int(bins.max(initial=-1)) + 1):
        inside = bins == k
        if inside.sum() < minimum_starts:
            return CaptureRange(k * bin_mm, "starts")
        if good[inside].mean() < required:
            return CaptureRange(k * bin_mm, "success")
    return CaptureRange((int(bins.max(initial=-1)) + 1) * bin_mm, "starts")
