"""How much of an X-ray's detail is noise."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from radgs.kernels import gradients

_BLURS_PX = (0.0, 0.8, 1.1, 1.6, 2.3)
_MOST_NOISE = 0.6  # of the energy of gradients


def grain_px(blocks: NDArray[np.floating], image: NDArray[np.float32], near: NDArray[np.bool_]) -> float:
    """The least of some blurs after which gradients are no longer mostly noise; the most if they always are.

    The pixels of a bin are dealt into two halves like a chessboard's: what they differ by is as much noise as there is
    in their mean, and hardly anything else. A detector whose neighbouring pixels share noise has more than this tells.

    Args:
        blocks: ``[H, f, W, f]``, line integrals before they are binned; NaN where nothing was measured.
        image: ``[H, W]``, binned.
        near: ``[H, W]``, the spine's surroundings; the half of them counts that is darker on film.

    Returns:
        binned pixels; 0 where pixels are not binned, or none are near.
    """
    factor = blocks.shape[1]
    if factor < 2 or not near.any():
        return 0.0
    where = torch.from_numpy(near & (image >= np.median(image[near])))
    black = (np.add.outer(np.arange(factor), np.arange(factor)) % 2 == 0)[None, :, None, :]
    halves = [np.where(half, blocks, 0).sum(axis=(1, 3)) / half.sum() for half in (black, ~black)]
    noise = np.nan_to_num((halves[0] - halves[1]) / 2).astype(np.float32)
    both = torch.from_numpy(np.stack([image, noise]))
    for blur_px in _BLURS_PX:
        seen, grain = gradients(both, blur_px).square().sum(dim=1)[:, where].median(dim=1).values
        if grain <= _MOST_NOISE * seen:
            break
    return blur_px
