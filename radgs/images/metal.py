"""Screws, rods and wires in an X-ray: nothing of the vertebra behind them was measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_WIDEST_MM = 9.0  # at the patient; rods and screws are 4 to 7 mm, K-wires 1 to 3 mm
# Line integral above the surroundings: no bone that narrow reaches the first (eight views of a chest CT: 0.51 at most);
# what is connected to such a place and above the second belongs to it.
_STEP, _REST = 0.55, 0.3
# A top-hat lifts noise by its whole range: so many standard deviations more are asked for.
_STEP_NOISE, _REST_NOISE = 6.0, 4.0
_NOISE_BLOCK = 16
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
    noise = _noise(binned)
    hat = ndimage.white_tophat(binned, size=(side, side))
    faint, clear = hat > _REST + _REST_NOISE * noise, hat > _STEP + _STEP_NOISE * noise
    over = ndimage.binary_propagation(clear, structure=np.ones((3, 3)), mask=faint)
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


def _noise(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Standard deviation of the noise around each pixel: medians over blocks, which a wire does not fill."""
    rough = np.abs(image - ndimage.median_filter(image, 3))
    n = min(_NOISE_BLOCK, *image.shape)
    height, width = (size // n * n for size in image.shape)
    blocks = rough[:height, :width].reshape(height // n, n, width // n, n)
    typical = np.median(blocks, axis=(1, 3)) / 0.6745
    return np.pad(
        typical.repeat(n, 0).repeat(n, 1), ((0, image.shape[0] - height), (0, image.shape[1] - width)), "edge"
    )
