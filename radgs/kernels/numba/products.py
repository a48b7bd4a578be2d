"""Weighted sums of products of rows: Gram matrices without a copy of the rows."""

import numpy as np
from numba import njit

from radgs.kernels.numba.options import INNER

_F = np.float32
_CHUNK = 512  # pixels; so many of all rows stay in the fastest cache


@njit(**INNER)
def dot(a, b):
    """Of two rows."""
    total = _F(0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@njit(**INNER)
def times(out, a, b):
    """Fill ``out`` with the product of two rows."""
    for i in range(out.shape[0]):
        out[i] = a[i] * b[i]


@njit(**INNER)
def products(rows, count, weights, out):
    """Fill ``out[:count, :count]`` (float64) with sums of products of the first rows ``[q, n]``."""
    out[:count, :count] = 0
    pixels = rows.shape[1]
    weighted = np.empty(_CHUNK, np.float32)
    for first in range(0, pixels, _CHUNK):
        last = min(first + _CHUNK, pixels)
        part = weighted[: last - first]
        for i in range(count):
            times(part, rows[i, first:last], weights[first:last])
            for j in range(i + 1):
                out[i, j] += dot(part, rows[j, first:last])
    for i in range(count):
        for j in range(i):
            out[j, i] = out[i, j]
