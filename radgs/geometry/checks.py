"""What every function that draws images refuses: cameras that are none, images without pixels."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from radgs.errors import GeometryError

# What rounding to float32 and small steps of an optimizer may do to matrices.
_INTRINSICS_TOLERANCE = 1e-6
_ORTHONORMAL_TOLERANCE = 1e-3
_LAST_ROW_TOLERANCE = 1e-5


def check_views(K: Float[Tensor, "*views 3 3"], pose: Float[Tensor, "*views 4 4"], name: str) -> None:
    """Refuse intrinsics and poses that belong to no camera; any type and device, shapes as given.

    Args:
        K: pixels.
        pose: mm.
        name: of the pose, for messages.

    Raises:
        GeometryError: numbers that are complex or not finite, K not upper triangular with positive focal lengths, or a
            pose that is not rigid.
    """
    if K.is_complex() or pose.is_complex():
        raise GeometryError(f"K and {name} must be real numbers, got {K.dtype} and {pose.dtype}")
    # Small matrices are looked at on the CPU: each question would wait for a GPU; NumPy is quicker at it than PyTorch.
    k, p = (x.detach().to("cpu", torch.float64).numpy() for x in (K, pose))
    for what, numbers in (("K", k), (name, p)):
        if not np.isfinite(numbers).all():
            raise GeometryError(f"{what} holds NaN or infinite numbers")
    off = max(_largest(k[..., 2, :] - (0, 0, 1)), _largest(k[..., 1, 0]))
    if off > _INTRINSICS_TOLERANCE or not (k[..., 0, 0] > 0).all() or not (k[..., 1, 1] > 0).all():
        raise GeometryError("K must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with positive focal lengths")
    rotation = p[..., :3, :3]
    off = _largest(rotation @ rotation.swapaxes(-1, -2) - np.eye(3))
    if off > _ORTHONORMAL_TOLERANCE or not (np.linalg.det(rotation) > 0).all():
        raise GeometryError(f"{name} must be rigid: a rotation and a translation, neither scale, shear nor mirror")
    if _largest(p[..., 3, :] - (0, 0, 0, 1)) > _LAST_ROW_TOLERANCE:
        raise GeometryError(f"{name} must be rigid: its last row is 0 0 0 1")


def _largest(numbers: NDArray[np.float64]) -> float:
    return float(np.abs(numbers).max(initial=0))


def check_size(size: Sequence[int]) -> None:
    """Refuse sizes that are not those of an image.

    Raises:
        GeometryError: not (height, width) of at least one pixel, in whole numbers.
    """
    right = isinstance(size, Sequence) and len(size) == 2
    if not right or not all(isinstance(n, Integral) and n >= 1 for n in size):
        raise GeometryError(f"size is (height, width) of at least one pixel, got {size}")
