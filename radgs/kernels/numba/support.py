"""Where a volume is not empty: rays have nothing to do elsewhere."""

import numpy as np
from numba import njit

from radgs.kernels.numba.options import INNER

BLOCK, BLOCK_Z = 8, 2  # voxels of a block along x and y, and along z, across which X-rays usually look


@njit(**INNER)
def _any(row):
    found = False
    for i in range(row.shape[0]):
        found |= row[i] != np.float32(0)
    return found


@njit(**INNER)
def _slice_any(volume, z):
    for y in range(volume.shape[1]):
        if _any(volume[z, y]):
            return True
    return False


@njit(**INNER)
def _column_any(volume, y, low, high):
    for z in range(low, high):
        if _any(volume[z, y]):
            return True
    return False


@njit(**INNER)
def support(volume, box):
    """Fill ``box [2, 3]`` with the first and one-past-last index (x, y, z) that is not 0; all 0 for an empty volume.

    Stops at the first value it finds from each side, so that a volume without empty margins costs nothing.
    """
    depth, height, width = volume.shape
    box[:] = 0
    z0, z1 = 0, depth
    while z0 < depth and not _slice_any(volume, z0):
        z0 += 1
    if z0 == depth:
        return
    while not _slice_any(volume, z1 - 1):
        z1 -= 1
    y0, y1 = 0, height
    while not _column_any(volume, y0, z0, z1):
        y0 += 1
    while not _column_any(volume, y1 - 1, z0, z1):
        y1 -= 1
    x0, x1 = width, 0
    for z in range(z0, z1):
        for y in range(y0, y1):
            row = volume[z, y]
            x = 0
            while x < x0 and row[x] == np.float32(0):
                x += 1
            x0 = min(x0, x)
            x = width
            while x > x1 and row[x - 1] == np.float32(0):
                x -= 1
            x1 = max(x1, x)
    box[0, 0], box[0, 1], box[0, 2] = x0, y0, z0
    box[1, 0], box[1, 1], box[1, 2] = x1, y1, z1


@njit(**INNER)
def occupied(volume, blocks):
    """Fill ``blocks`` (uint8): 1 where the block or one beside it holds a value that is not 0.

    A sample that lies less than a block's length along each axis from a point in a block marked 0 reads zeros.
    """
    blocks[:] = 0
    depth, height, width = volume.shape
    for z in range(depth):
        for y in range(height):
            row = volume[z, y]
            for first in range(0, width, BLOCK):
                if _any(row[first : min(first + BLOCK, width)]):
                    l, j, i = z // BLOCK_Z, y // BLOCK, first // BLOCK
                    blocks[max(l - 1, 0) : l + 2, max(j - 1, 0) : j + 2, max(i - 1, 0) : i + 2] = 1
