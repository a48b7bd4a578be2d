"""Derivatives of blurred images: what poses are compared by."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from radgs.errors import ImageError
from radgs.kernels.dispatch import operations, resolve_backend

_SMOOTH, _STEEP = np.array([0.25, 0.5, 0.25]), np.array([-0.5, 0.0, 0.5])  # Sobel's operator, taken apart


@torch.no_grad()
def gradients(images: Float[Tensor, "n H W"], sigma_px: float = 0.0) -> Float[Tensor, "n 2 H W"]:
    """Sobel derivatives along u and v, per pixel, of images after a Gaussian blur (cut at three sigma); edges repeated.

    Args:
        images: float32, CPU.
        sigma_px: of the blur; 0: none.

    Raises:
        ImageError: the images are not ``[n, H, W]``.
        RadgsError: they are not float32 on the CPU.
    """
    if images.ndim != 3:
        raise ImageError(f"images are [n, H, W], got {tuple(images.shape)}")
    resolve_backend("numba", images)
    if not images.numel():
        return images.new_zeros(len(images), 2, *images.shape[1:])
    out: Tensor = operations("numba").gradients(images, *_taps(sigma_px))
    return out


@lru_cache(maxsize=64)
def _taps(sigma_px: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if sigma_px <= 0:
        return _half(_SMOOTH), _half(_STEEP)
    reach = int(3 * sigma_px) or 1
    blur = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    blur /= blur.sum()
    return _half(np.convolve(blur, _SMOOTH)), _half(np.convolve(blur, _STEEP))


def _half(taps: NDArray[np.float64]) -> NDArray[np.float32]:
    """The middle tap and those after it."""
    return taps[len(taps) // 2 :].astype(np.float32)
