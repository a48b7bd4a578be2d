"""Screws, rods and wires in an X-ray: nothing of the vertebra behind them was measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold

_WIDEST_MM = 9.0  # at the patient; rods and screws are 4 to 7 mm, K-wires 1 to 3 mm
# Line integral above the surroundings: no bone that narrow reaches the first (eight views of a chest CT: 0.51 at most);
# what is connected to such a place and above the second belongs to it.
_STEP, _REST = 0.55, 0.3
_MARGIN_MM = 1.0
_SMALLEST_MM2 = 20.0  # of a piece: noise is smaller
_GRID_MM = 0.5
_MOST = 0.25  # of an image; where more stands out, it is something else


def find_metal(line_integrals: NDArray[np.float32], pixel_mm: float) -> NDArray[np.bool_]:
    """Where an X-ray is much darker than a few millimetres beside: a white top-hat with a threshold.

    Args:
        line_integrals: ``[H, W]``; NaN: not measured.
        pixel_mm: size of a pixel at the depth of the patient.

    Returns:
        ``[H, W]``; metal and a millimetre around it. None where the image is narrower than metal could be, or where
        more than a quarter of it would be metal.
    """
    factor = max(min(round(_GRID_MM / pixel_mm), *line_integrals.shape), 1)
    height, width = (n // factor * factor for n in line_integrals.shape)
    values = np.where(np.isfinite(line_integrals), line_integrals, np.nanmedian(line_integrals))
    binned = values[:height, :width].reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3))
    step_mm = factor * pixel_mm
    side = max(round(_WIDEST_MM / step_mm), 3)
    if side > min(binned.shape):
        return np.zeros(line_integrals.shape, dtype=bool)
    over = apply_hysteresis_threshold(ndimage.white_tophat(binned, size=(side, side)), _REST, _STEP)
    pieces, count = ndimage.label(over, structure=np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1) * step_mm**2
    large = (sizes >= _SMALLEST_MM2) & (np.arange(count + 1) > 0)
    margin = max(round(_MARGIN_MM / step_mm), 1)
    wide = ndimage.binary_dilation(large[pieces], iterations=margin)
    if wide.mean() > _MOST:
        return np.zeros(line_integrals.shape, dtype=bool)
    found = np.zeros(line_integrals.shape, dtype=bool)
    found[:height, :width] = wide.repeat(factor, axis=0).repeat(factor, axis=1)
    return found
