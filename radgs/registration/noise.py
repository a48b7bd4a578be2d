"""How noisy an X-ray is: how much of its detail is chance, and where.

Behind bone and much tissue few quanta are left, whose logarithm scatters more: it counts less (`certainty`).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from radgs.kernels import gradients

_BLURS_PX = (0.0, 0.8, 1.1, 1.6, 2.3)
_MOST_NOISE = 0.6  # of the energy of gradients
_AROUND_PX = 5.0  # pixels that are as noisy
_UNEXPLAINED = 0.2  # of the energy of gradients that are no noise is what the model lacks
_LEAST_SIGNAL = 0.1  # of the energy of gradients


def noise_and_grain(
    blocks: NDArray[np.floating], image: NDArray[np.float32], near: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], float]:
    """How noisy pixels are, and the blur that hides it.

    The pixels of a bin are dealt into two halves like a chessboard's: what they differ by is as much noise as there is
    in their mean, and hardly anything else. A detector whose neighbouring pixels share noise has more than this tells.

    Args:
        blocks: ``[H, f, W, f]``, line integrals before they are binned; NaN where nothing was measured.
        image: ``[H, W]``, binned.
        near: ``[H, W]``, the spine's surroundings.

    Returns:
        The variance of binned pixels, ``[H, W]``; and the least of some blurs (binned pixels) after which gradients
        are no longer mostly noise in the half of the surroundings that is darker on film, the most if they always are.
        Both 0 where pixels are not binned, or none are near.
    """
    factor = blocks.shape[1]
    if factor < 2 or not near.any():
        return np.zeros_like(image), 0.0
    black = (np.add.outer(np.arange(factor), np.arange(factor)) % 2 == 0)[None, :, None, :]
    halves = [np.where(half, blocks, 0).sum(axis=(1, 3)) / half.sum() for half in (black, ~black)]
    noise = ((halves[0] - halves[1]) / 2).astype(np.float32)
    known = np.isfinite(noise)
    noise = np.where(known, noise, 0)
    squares = ndimage.gaussian_filter(np.stack([noise**2, known]).astype(np.float32), (0, _AROUND_PX, _AROUND_PX))
    variance = squares[0] / np.maximum(squares[1], np.finfo(np.float32).tiny)
    where = torch.from_numpy(near & (image >= np.median(image[near])))
    both = torch.from_numpy(np.stack([image, noise]))
    for blur_px in _BLURS_PX:
        seen, grain = gradients(both, blur_px).square().sum(dim=1)[:, where].median(dim=1).values
        if grain <= _MOST_NOISE * seen:
            break
    return variance, blur_px


def certainty(
    noise: Float[Tensor, "H W"],
    seen: Float[Tensor, "2 H W"],
    where: Bool[Tensor, "H W"],
    blur_px: float,
) -> Float[Tensor, "H W"]:
    """What a pixel's gradient counts beside others': 1 where there is no noise, less where there is more.

    It is the inverse of the standard deviation of what the model of the X-ray lacks and of its noise, together.

    Args:
        noise: the variance of pixels.
        seen: gradients of the image after a blur.
        where: pixels that tell how large gradients are.
        blur_px: the blur.
    """
    variance = noise * _gain(blur_px)
    if not where.any() or variance[where].median() <= 0:
        return torch.ones_like(noise)
    energy = seen.square().mean(dim=0)[where].median() / math.log(2)  # as the mean of two squares of normal numbers
    signal = max(energy - variance[where].median(), _LEAST_SIGNAL * energy)
    lacks = _UNEXPLAINED * signal
    return (lacks / (lacks + variance)).sqrt()


@lru_cache(maxsize=64)
def _gain(blur_px: float) -> float:
    """The variance of a gradient of an image of noise of variance 1."""
    reach = int(3 * blur_px) + 3
    impulse = torch.zeros(1, 2 * reach + 1, 2 * reach + 1)
    impulse[0, reach, reach] = 1
    return float(gradients(impulse, blur_px)[0, 0].square().sum())
