"""Line integrals of many parts that move each by itself, and their derivatives by the motions, all in one launch."""

import math

import numpy as np
from numba import njit, prange

from radgs.kernels.numba.options import EXACT, INNER, PARALLEL
from radgs.kernels.numba.rays import as_tuple, direction
from radgs.kernels.numba.support import BLOCK, BLOCK_Z
from radgs.kernels.numba.trilinear import bounds, ray_sums

_F = np.float32


@njit(**EXACT)
def _turned(linear, x, y, z):
    """The transpose of a matrix times a vector."""
    return (
        linear[0, 0] * x + linear[1, 0] * y + linear[2, 0] * z,
        linear[0, 1] * x + linear[1, 1] * y + linear[2, 1] * z,
        linear[0, 2] * x + linear[1, 2] * y + linear[2, 2] * z,
    )


@njit(**EXACT)
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@njit(**EXACT)
def _along_row(matrix, v):
    """A matrix times (u, v, 1) is the first vector and u times the second."""
    first = direction(matrix, 0.0, v)
    return first, (matrix[0, 0], matrix[1, 0], matrix[2, 0])


@njit(**EXACT)
def _at(line, u):
    a, b = line
    return a[0] + u * b[0], a[1] + u * b[1], a[2] + u * b[2]


@njit(**INNER)
def _row(volume, limits, occupied, ray, v, first, last, left, step_mm, motion, out):
    """One row of a window, columns ``first`` to ``last - 1`` of the image, the window's first being ``left``."""
    source, directions, from_pixel, arm, along, linear = ray
    slopes, in_camera, in_ct = _along_row(directions, v), _along_row(from_pixel, v), _along_row(along, v)
    origin, arm = as_tuple(source), as_tuple(arm)
    for u in range(first, last):
        x, y, z = _at(in_camera, u)
        length = math.sqrt(x * x + y * y + z * z)
        sums = ray_sums(volume, limits, occupied, origin, _at(slopes, u), step_mm / length, motion)
        out[0, u - left] = _F(sums[0] * length)
        if motion:
            by_source = _turned(linear, sums[1], sums[2], sums[3])
            a, b = _cross(by_source, arm), _cross(_turned(linear, sums[4], sums[5], sums[6]), _at(in_ct, u))
            for axis in range(3):
                out[1 + axis, u - left] = _F((a[axis] + b[axis]) * length)
                out[4 + axis, u - left] = _F(-by_source[axis] * length)


@njit(**PARALLEL)
def draw(packed, owner, rays, places, rows, step_mm, motion, out):
    """Fill ``out``, one after the other the windows' images ``[7 or 1, h, w]``.

    A motion of the volume is the opposite motion of source and direction: a turn crosses them with what they are in the
    CT's frame, and a shift moves the source alone.

    Args:
        packed: of P volumes ``[D, H, W]`` all values, where each volume's begin, shapes ``[P, 3]``, boxes
            ``[P, 2, 3]`` of `support`, all blocks of `occupied`, where each volume's begin.
        owner: ``[J]`` which part each window shows.
        rays: by window, source ``[J, 3]`` and directions ``[J, 3, 3]`` in index coordinates, directions in camera
            axes, the source's place from the centre of turns in the CT ``[J, 3]`` and directions there, index_from_ct's
            linear part ``[J, 3, 3]``; directions are to be multiplied by (u, v, 1).
        places: ``[J, 4]`` rows from, to, columns from, to, where the part can be; the windows, which are the same with
            a margin of zeros; where each begins in ``out``.
        rows: ``[R, 2]`` all windows' rows: which window, which row of the image.
        step_mm: distance of samples.
        motion: whether derivatives are wanted.
        out: in one row.
    """
    channels = 7 if motion else 1
    for job in prange(rows.shape[0]):
        j, v = rows[job]
        part, drawn = owner[j], places[0][j]
        depth, height, width = packed[2][part]
        top, bottom, left, right = places[1][j]
        first, size = places[2][j], channels * (bottom - top) * (right - left)
        image = out[first : first + size].reshape(channels, bottom - top, right - left)[:, v - top]
        image[:] = _F(0)
        if drawn[0] <= v < drawn[1]:
            first = packed[1][part]
            volume = packed[0][first : first + depth * height * width].reshape(depth, height, width)
            d, h, w = -(-depth // BLOCK_Z), -(-height // BLOCK), -(-width // BLOCK)
            first = packed[5][part]
            occupied = packed[4][first : first + d * h * w].reshape(d, h, w)
            limits = bounds(volume.shape, packed[3][part])
            ray = rays[0][j], rays[1][j], rays[2][j], rays[3][j], rays[4][j], rays[5][j]
            _row(volume, limits, occupied, ray, v, drawn[2], drawn[3], left, step_mm, motion, image)
