"""How noisy an X-ray is: how much of its detail is chance, and where.

Behind bone and much tissue few quanta are left. They scatter like Poisson's: behind a line integral a the variance of
their logarithm is exp(a) times that in air. That is how noise differs from a pixel to the next; how large it is, is
measured all over the image, so other laws do little harm. What is noisier counts less (`certainty`).
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
_SMOOTH_PX = 3.0  # a line integral that noise hardly moves
_EDGE = 10.0  # times the median of squares: metal's edges differ by more than noise
_AROUND_PX = 15.0  # pixels that are noisy by the same law
_UNEXPLAINED = 0.2  # of the energy of gradients that are no noise is what the model lacks
_LEAST_SIGNAL, _NOTHING = 0.1, 1e-3  # of the energy of gradients
_MEDIAN_OF_TWO = math.log(2)  # of the mean of two squares of standard normal numbers


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
    quanta = np.exp(-ndimage.gaussian_filter(image, _SMOOTH_PX, mode="nearest"))
    known = np.isfinite(noise)
    squares = np.where(known, noise, 0) ** 2 * quanta
    squares = np.minimum(squares, _EDGE * np.median(squares[near]))
    in_air = np.stack([squares, known]).astype(np.float32)
    in_air = ndimage.gaussian_filter(in_air, (0, _AROUND_PX, _AROUND_PX))
    variance = in_air[0] / np.maximum(in_air[1], np.finfo(np.float32).tiny) / quanta
    where = torch.from_numpy(near & (image >= np.median(image[near])))
    both = torch.from_numpy(np.stack([image, np.nan_to_num(noise)]))
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
    variance, energy = noise * _gain(blur_px), seen.square().mean(dim=0)
    if not where.any() or variance[where].median() <= _NOTHING * energy[where].mean():
        return torch.ones_like(noise)
    usual, chance = energy[where].median() / _MEDIAN_OF_TWO, variance[where].median()
    signal = max(usual - chance, _LEAST_SIGNAL * usual)
    lacks = _UNEXPLAINED * signal
    return (lacks / (lacks + variance)).sqrt()


@lru_cache(maxsize=64)
def _gain(blur_px: float) -> float:
    """The variance of a gradient of an image of noise of variance 1."""
    reach = int(3 * blur_px) + 3
    impulse = torch.zeros(1, 2 * reach + 1, 2 * reach + 1)
    impulse[0, reach, reach] = 1
    return float(gradients(impulse, blur_px)[0, 0].square().sum())
