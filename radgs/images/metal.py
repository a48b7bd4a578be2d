"""Screws, rods and wires in an X-ray: nothing of the vertebra behind them was measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_WIDEST_MM = 14.0  # at the patient; heads of screws are 12 mm, rods and shafts 4 to 7 mm, K-wires 1 to 3 mm
# Line integrals above the surroundings at which pieces are cut out. Scatter flattens contrast, so metal behind much
# tissue is found at the last, and metal that touches bone comes apart from it at one of those before.
_LEVELS = (1.0, 0.75, 0.55, 0.4, 0.3, 0.22, 0.15)
_PLAIN = 0.5  # no bone stands out so far: where nothing does, nothing fainter is taken for metal either
# What tells metal from bone is its edge: the drop across a piece's rim, 1/mm, alone and against the piece's height.
_STEEP, _SHARP = 0.15, 0.32
_NOISE_LIFTS, _NOISE_STEEP = 4.0, 2.0  # a top-hat lifts noise by its range, and rims follow noise: deviations of it
_NOISE_BLOCK = 16
_BLUR_PX = 0.8
_FOOT_MM = 2.0  # so far down to the last level goes what was found at one of the others: a round rod's thin sides
_MARGIN_MM = 1.0
_SMALLEST_MM2 = 20.0  # of a piece: noise is smaller
_GRID_MM = 0.5
_MOST = 0.25  # of an image; where more stands out, it is something else


def find_metal(line_integrals: NDArray[np.float32], pixel_mm: float) -> NDArray[np.bool_]:
    """Where an X-ray is darker than a few millimetres beside, and turns so within a millimetre as no bone does.

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
    noise = _noise(binned) / (2 * np.sqrt(np.pi) * _BLUR_PX)
    smooth = ndimage.gaussian_filter(binned, _BLUR_PX)
    hat = ndimage.white_tophat(smooth, size=(side, side)) - _NOISE_LIFTS * noise
    foot, margin = (max(round(mm / step_mm), 1) for mm in (_FOOT_MM, _MARGIN_MM))
    metal = wide = np.zeros(binned.shape, dtype=bool)
    for level in _LEVELS:  # what is found is cut out, so that its rim does not speak for the bone it lies on
        if level < _PLAIN and not metal.any():
            break
        found = _sharp_pieces(hat, level, ~wide, noise, step_mm)
        metal = metal | found | (ndimage.binary_dilation(found, iterations=foot) & (hat > _LEVELS[-1]))
        wide = ndimage.binary_dilation(metal, iterations=margin)
    out = np.zeros(line_integrals.shape, dtype=bool)
    if wide.mean() <= _MOST:
        out[:height, :width] = wide.repeat(factor, axis=0).repeat(factor, axis=1)
    return out


def _sharp_pieces(
    hat: NDArray[np.float64],
    level: float,
    where: NDArray[np.bool_],
    noise: NDArray[np.float64],
    step_mm: float,
) -> NDArray[np.bool_]:
    """The pieces of ``hat`` above a level, and ``where``, whose rims are as sharp as metal's."""
    pieces, count = ndimage.label((hat > level) & where, structure=np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1) * step_mm**2
    pieces = np.where(sizes >= _SMALLEST_MM2, np.arange(count + 1), 0)[pieces]
    inside = ndimage.minimum_filter(pieces, 3)
    cut = ndimage.binary_dilation(~where, np.ones((3, 3)))
    inner = np.where((inside == pieces) | cut, 0, pieces)
    near, around = ndimage.maximum_filter(pieces, 3), ndimage.maximum_filter(pieces, 5)
    outer = np.where((near == 0) & ~cut, around, 0)
    every = np.arange(count + 1)
    drop = (_means(hat, inner, count) - _means(hat, outer, count)) / (2 * step_mm)
    top = _means(hat, pieces, count)
    sharp = (drop > _STEEP + _NOISE_STEEP * _means(noise, pieces, count)) & (drop > _SHARP * top) & (every > 0)
    return sharp[pieces]


def _means(image: NDArray[np.float64], pieces: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    """By piece, the mean; 0 of those that are not there."""
    sums = np.bincount(pieces.ravel(), image.ravel(), count + 1)
    return sums / np.maximum(np.bincount(pieces.ravel(), minlength=count + 1), 1)


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
