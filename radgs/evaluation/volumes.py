"""How good a reconstruction is: SSIM, PSNR, and the surface of bone, in attenuation (1/mm) on a common grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from monai.metrics import SSIMMetric, compute_average_surface_distance, compute_hausdorff_distance
from numpy.typing import NDArray

from radgs.images import Volume

# Compact cortical bone is 0.031/mm above water at 70 keV (ICRU-44 cortical bone, NIST): one range for all, so that
# numbers of different vertebrae compare.
DATA_RANGE_PER_MM = 0.03
# About 200 HU above soft tissue.
BONE_EXCESS_PER_MM = 0.004


@dataclass(frozen=True)
class VolumeMetrics:
    """One reconstruction against the truth; None where a number does not exist.

    Attributes:
        ssim: 3D structural similarity (MONAI: Gaussian window of 11 voxels), data range 0.03/mm.
        psnr_db: peak signal-to-noise ratio, peak 0.03/mm; None if the volumes are equal.
        dice: overlap of bone, that is of values above 0.004/mm; None if neither volume has bone.
        asd_mm: symmetric average distance of the surfaces of bone; None if either has none.
        hd95_mm: 95th percentile of the Hausdorff distance of the same.
    """

    ssim: float
    psnr_db: float | None
    dice: float | None
    asd_mm: float | None
    hd95_mm: float | None


def compare_volumes(estimated: Volume, truth: Volume) -> VolumeMetrics:
    """Measure a reconstruction of excess attenuation (1/mm) against the truth on the same grid.

    Raises:
        ImageError: the grids have different shapes.
    """
    volume = truth.with_array(estimated.array)
    bone, true_bone = volume.array > BONE_EXCESS_PER_MM, truth.array > BONE_EXCESS_PER_MM  # type: ignore[operator]
    spacing = tuple(float(s) for s in truth.spacing[::-1])
    asd, hd95 = surface_distances(bone, true_bone, spacing)
    return VolumeMetrics(
        ssim=ssim(volume.array, truth.array),
        psnr_db=psnr_db(volume.array, truth.array),
        dice=dice(bone, true_bone),
        asd_mm=asd,
        hd95_mm=hd95,
    )


def ssim(estimated: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """3D SSIM of two ``[D, H, W]`` volumes in 1/mm with the fixed data range."""
    metric = SSIMMetric(spatial_dims=3, data_range=DATA_RANGE_PER_MM)
    return float(torch.as_tensor(metric(_batch(estimated), _batch(truth))))


def psnr_db(estimated: NDArray[np.generic], truth: NDArray[np.generic]) -> float | None:
    """Peak signal-to-noise ratio of two ``[D, H, W]`` volumes in 1/mm, dB; None if they are equal."""
    error = np.mean((estimated.astype(np.float64) - truth.astype(np.float64)) ** 2)
    return float(10 * np.log10(DATA_RANGE_PER_MM**2 / error)) if error > 0 else None


def dice(estimated: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float | None:
    """``2 |A and B| / (|A| + |B|)``; None if both are empty."""
    total = int(estimated.sum()) + int(truth.sum())
    return 2.0 * int((estimated & truth).sum()) / total if total else None


def surface_distances(
    estimated: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_zyx: Sequence[float]
) -> tuple[float | None, float | None]:
    """Symmetric average surface distance and 95th percentile Hausdorff distance of two masks ``[D, H, W]``, mm."""
    if not (estimated.any() and truth.any()):
        return None, None
    masks = _batch(estimated), _batch(truth)
    asd = compute_average_surface_distance(*masks, include_background=True, symmetric=True, spacing=list(spacing_zyx))
    hd95 = compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=list(spacing_zyx))
    return float(asd.item()), float(hd95.item())


def average_metrics(metrics: Sequence[VolumeMetrics]) -> dict[str, float | int | None] | None:
    """The mean of each number where it exists, and ``n``; None if there is no reconstruction at all."""
    if not metrics:
        return None
    rows = [asdict(m) for m in metrics]
    known = {key: [row[key] for row in rows if row[key] is not None] for key in rows[0]}
    return {"n": len(rows), **{key: float(np.mean(v)) if v else None for key, v in known.items()}}


def _batch(array: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None, None]
