"""Separable filters of small images."""

import numpy as np
from numba import njit, prange

from radgs.kernels.numba.options import INNER, PARALLEL


@njit(**INNER)
def _add_both_sides(before, after, tap, out):
    """A symmetric filter."""
    for x in range(out.shape[0]):
        out[x] += tap * (after[x] + before[x])


@njit(**INNER)
def _add_difference(before, after, tap, out):
    """An antisymmetric filter."""
    for x in range(out.shape[0]):
        out[x] += tap * (after[x] - before[x])


@njit(**INNER)
def _add_sum_and_difference(before, after, tap_even, tap_odd, even, odd):
    for x in range(even.shape[0]):
        a, b = after[x], before[x]
        even[x] += tap_even * (a + b)
        odd[x] += tap_odd * (a - b)


@njit(**INNER)
def _repeat_ends(padded, reach, width):
    for x in range(reach):
        padded[x] = padded[reach]
        padded[reach + width + x] = padded[reach + width - 1]


@njit(**PARALLEL)
def slopes(images, smooth, steep, out):
    """Fill ``out [n, 2, H, W]``: along u ``steep`` by rows after ``smooth`` by columns, along v the other way round.

    Args:
        images: ``[n, H, W]``; edges are repeated.
        smooth: the middle tap of a symmetric filter and those after it.
        steep: the same of an antisymmetric filter; its first tap is zero.
    """
    count, height, width = images.shape
    reach = smooth.shape[0] - 1
    for n in prange(count):
        even = np.empty(width + 2 * reach, dtype=np.float32)
        odd = np.empty(width + 2 * reach, dtype=np.float32)
        even_inner, odd_inner = even[reach : reach + width], odd[reach : reach + width]
        for y in range(height):
            even_inner[:] = smooth[0] * images[n, y]
            odd_inner[:] = 0
            for k in range(1, reach + 1):
                before, after = images[n, max(y - k, 0)], images[n, min(y + k, height - 1)]
                _add_sum_and_difference(before, after, smooth[k], steep[k], even_inner, odd_inner)
            _repeat_ends(even, reach, width)
            _repeat_ends(odd, reach, width)
            along_u, along_v = out[n, 0, y], out[n, 1, y]
            along_u[:] = 0
            along_v[:] = smooth[0] * odd_inner
            for k in range(1, reach + 1):
                first, last = reach - k, reach + k
                _add_difference(even[first : first + width], even[last : last + width], steep[k], along_u)
                _add_both_sides(odd[first : first + width], odd[last : last + width], smooth[k], along_v)
