"""Rows in whole vectors.

Rows are short, and what does not fill a vector LLVM does one by one: it is faster to draw lanes beyond both ends too,
and to add zero there.
"""

import numpy as np
from numba import int32, njit

from radgs.kernels.numba.options import INNER

# A vector of AVX-512, two of AVX2. Rows of images and volumes are a whole number of these long.
LANES = 16


@njit(**INNER)
def whole_lanes(first, last, length):
    """A part of a row of whole `LANES`, ``start`` to ``stop - 1``, that holds ``first`` to ``last``.

    It lies inside the row, whose ``length`` is a whole number of lanes.
    """
    count = (last - first + int32(LANES)) // int32(LANES) * int32(LANES)
    start = min(first, int32(length) - count)
    return start, start + count


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros of this shape, float32, the last axis rounded up to whole `LANES`."""
    return np.zeros((*shape[:-1], -(-shape[-1] // LANES) * LANES), np.float32)
