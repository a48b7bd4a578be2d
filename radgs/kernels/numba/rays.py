"""Float64 set-up of rays in index coordinates: a source a metre away would cost float32 its digits."""

import numpy as np
from numba import njit

from radgs.kernels.numba.options import EXACT


@njit(**EXACT)
def as_tuple(vector):
    """A row of three numbers as a tuple."""
    return vector[0], vector[1], vector[2]


@njit(**EXACT)
def direction(direction_from_pixel, u, v):
    """Index coordinates per mm of depth along the ray of pixel (u, v)."""
    m = direction_from_pixel
    return (
        m[0, 0] * u + m[0, 1] * v + m[0, 2],
        m[1, 0] * u + m[1, 1] * v + m[1, 2],
        m[2, 0] * u + m[2, 1] * v + m[2, 2],
    )


@njit(**EXACT)
def clip(start, end, origin, slope, low, high):
    """The part of the depths ``start..end`` where ``low <= origin + depth * slope <= high``; empty: end < start."""
    if abs(slope) < 1e-12:
        return (start, end) if low <= origin <= high else (start, start - 1.0)
    a, b = (low - origin) / slope, (high - origin) / slope
    return max(start, min(a, b)), min(end, max(a, b))


@njit(**EXACT)
def clip_box(start, end, origin, slope, low, high):
    """The part of the depths ``start..end`` inside a box, given corner by corner as (x, y, z)."""
    for axis in range(3):
        start, end = clip(start, end, origin[axis], slope[axis], low[axis], high[axis])
        if end <= start:
            return start, start
    return start, end


@njit(**EXACT)
def sample_range(start, end, entry, step, count):
    """First and one-past-last k of ``count`` samples at ``entry + (k + 1/2) step`` within ``start..end``."""
    if end <= start:
        return np.int32(0), np.int32(0)
    first = max(0, int(np.ceil((start - entry) / step - 0.5)))
    last = min(count, int(np.floor((end - entry) / step - 0.5)) + 1)
    return np.int32(first), np.int32(max(first, last))
