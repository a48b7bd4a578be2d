"""Least squares for fields that are bilinear between a lattice's nodes: a pixel knows its cell's four nodes only."""

import numpy as np
from numba import njit, prange

from radgs.kernels.numba.options import INNER, PARALLEL
from radgs.kernels.numba.products import products

_F = np.float32


@njit(**INNER)
def _count(weights, y0, y1, x0, x1):
    count = 0
    for d in range(weights.shape[0]):
        for y in range(y0, y1):
            for x in range(x0, x1):
                count += weights[d, y, x] != _F(0)
    return count


@njit(**INNER)
def _gather(derivatives, residual, weights, places, cell, y0, y1, x0, x1, rows, weight):
    """Fill ``rows``: by corner of the cell and field its derivative, then the residual; and the pixels' weights."""
    fields, n = derivatives.shape[0], 0
    for d in range(weights.shape[0]):
        for y in range(y0, y1):
            low = places[0][y] - _F(cell[0])
            for x in range(x0, x1):
                if weights[d, y, x] == _F(0):
                    continue
                left = places[1][x] - _F(cell[1])
                a, b = (_F(1) - low) * (_F(1) - left), (_F(1) - low) * left
                c, e = low * (_F(1) - left), low * left
                for f in range(fields):
                    value = derivatives[f, d, y, x]
                    rows[f, n], rows[fields + f, n] = a * value, b * value
                    rows[2 * fields + f, n], rows[3 * fields + f, n] = c * value, e * value
                rows[4 * fields, n] = residual[d, y, x]
                weight[n] = weights[d, y, x]
                n += 1


@njit(**PARALLEL)
def cells(derivatives, residual, weights, places, ends, out):
    """Fill ``out [ny - 1, nx - 1, 4 C + 1, 4 C + 1]`` with the sums of products of each cell.

    Args:
        derivatives: ``[C, d, h, w]``.
        residual: ``[d, h, w]``.
        weights: ``[d, h, w]``.
        places: of rows and columns, in units of the lattice.
        ends: of rows and columns, where each cell's begin, and the end.
        out: corner by corner (left to right, then down) the fields', and the residual.
    """
    across = out.shape[1]
    for job in prange(out.shape[0] * across):
        j, i = job // across, job % across
        y0, y1, x0, x1 = ends[0][j], ends[0][j + 1], ends[1][i], ends[1][i + 1]
        count = _count(weights, y0, y1, x0, x1)
        if count:
            rows, weight = np.empty((out.shape[2], count), np.float32), np.empty(count, np.float32)
            _gather(derivatives, residual, weights, places, (j, i), y0, y1, x0, x1, rows, weight)
            products(rows, out.shape[2], weight, out[j, i])
        else:
            out[j, i] = 0


@njit(**INNER)
def add_cells(out, curvature, pull):
    """Add up cells to ``curvature [C, ny, nx, C, ny, nx]`` and ``pull [C, ny, nx]``."""
    fields = curvature.shape[0]
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            for a in range(4 * fields):
                f, y, x = a % fields, j + a // fields // 2, i + a // fields % 2
                pull[f, y, x] += out[j, i, a, 4 * fields]
                for b in range(4 * fields):
                    g, v, u = b % fields, j + b // fields // 2, i + b // fields % 2
                    curvature[f, y, x, g, v, u] += out[j, i, a, b]
