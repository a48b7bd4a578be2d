"""Radiative Gaussians to images, from 11 coefficients for each Gaussian and image.

Coefficients: centre u, v; amplitude a; Gxx, Gxy, Gyy; gx, gy; Qxx, Qxy, Qyy, all in pixels. At offset d from the
centre, with n = d'Gd and q = 1 + 2 g.d + d'Qd, a Gaussian adds a q^(-1/2) exp(-n / 2q) wherever n <= cutoff^2 q: an
ellipse, whose rows are found in closed form. A cut-off of 0 leaves the Gaussian out. Each pixel and each coefficient
is summed by one worker in one order.
"""

import math

import numpy as np
from numba import float32, int32, njit, prange

from radgs.kernels.numba.exponential import exp_half
from radgs.kernels.numba.lanes import LANES, whole_lanes
from radgs.kernels.numba.options import INNER, PARALLEL

_F = np.float32
_CHUNK = 32


@njit(**INNER)
def rows_of(c, tau, height):
    """First and last row of a Gaussian's footprint, kept inside the image; empty: last < first."""
    if not tau > _F(0):
        return int32(0), int32(-1)
    tau2 = tau * tau
    mx, mc, my = c[3] - tau2 * c[8], c[4] - tau2 * c[9], c[5] - tau2 * c[10]
    determinant = mx * my - mc * mc
    if not (mx > _F(0) and determinant > _F(0)):
        return int32(0), int32(-1)
    x = tau2 * (my * c[6] - mc * c[7]) / determinant
    y = tau2 * (mx * c[7] - mc * c[6]) / determinant
    half = math.sqrt(max(tau2 * (_F(1) + c[6] * x + c[7] * y) * mx / determinant, _F(0)))
    first = min(max(c[1] + y - half, _F(0)), _F(height))
    last = max(min(c[1] + y + half, _F(height - 1)), _F(-1))
    return int32(math.ceil(first)), int32(math.floor(last))


@njit(**INNER)
def _span(c, dy, tau2, width):
    """First and last column of the footprint in the row at offset ``dy``; empty: last < first."""
    mx = c[3] - tau2 * c[8]
    b = (c[4] - tau2 * c[9]) * dy - tau2 * c[6]
    discriminant = b * b - mx * ((c[5] - tau2 * c[10]) * dy * dy - _F(2) * tau2 * c[7] * dy - tau2)
    if not discriminant >= _F(0):
        return int32(0), int32(-1)
    root, inverse = math.sqrt(discriminant), _F(1) / mx
    first = min(max(c[0] + (-b - root) * inverse, _F(0)), _F(width))
    last = max(min(c[0] + (-b + root) * inverse, _F(width - 1)), _F(-1))
    return int32(math.ceil(first)), int32(math.floor(last))


@njit(**INNER)
def _draw(row, low, high, dx0, a, gxx, n1, n0, qxx, q1, q0):
    """Add to a row of whole `LANES` what lies in columns ``low`` to ``high``; ``dx0`` is the offset of its first."""
    for block in range(row.shape[0] // LANES):
        for lane in range(LANES):
            i = block * LANES + lane
            column = float32(int32(i))
            dx = dx0 + column
            r2 = _F(1) / ((qxx * dx + q1) * dx + q0)
            value = a * math.sqrt(r2) * exp_half(((gxx * dx + n1) * dx + n0) * r2)
            row[i] += value if (column >= low) & (column <= high) else _F(0)


@njit(**INNER)
def _collect(row, dx0, gxx, n1, n0, qxx, q1, q0):
    """Over a row: sum of E / a; sums of A', A' dx, A' dx^2; of B, B dx, B dx^2 (without a)."""
    e = a0 = a1 = a2 = b0 = b1 = b2 = _F(0)
    for i in range(row.shape[0]):
        dx = dx0 + float32(int32(i))
        r2 = _F(1) / ((qxx * dx + q1) * dx + q0)
        n = ((gxx * dx + n1) * dx + n0) * r2
        value = row[i] * math.sqrt(r2) * exp_half(n)
        e += value
        a = _F(-0.5) * r2 * value
        b = a * (_F(1) - n)
        ax, bx = a * dx, b * dx
        a0, a1, a2 = a0 + a, a1 + ax, a2 + ax * dx
        b0, b1, b2 = b0 + b, b1 + bx, b2 + bx * dx
    return e, a0, a1, a2, b0, b1, b2


@njit(**INNER)
def _add(c, tau2, image, width, first, last):
    """Add a Gaussian to rows of an image, of which ``width`` columns are wanted."""
    # Scalars, which the compiler keeps in registers: it cannot know that the image is not where an array lies.
    c = (c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10])
    for y in range(first, last + 1):
        dy = float32(int32(y)) - c[1]
        left, right = _span(c, dy, tau2, width)
        if left <= right:
            n1, n0 = _F(2) * c[4] * dy, c[5] * dy * dy
            q1, q0 = _F(2) * (c[6] + c[9] * dy), _F(1) + _F(2) * c[7] * dy + c[10] * dy * dy
            start, stop = whole_lanes(left, right, image.shape[1])
            low, high = float32(left - start), float32(right - start)
            _draw(image[y, start:stop], low, high, float32(start) - c[0], c[2], c[3], n1, n0, c[8], q1, q0)


@njit(**INNER)
def _pull_back(c, tau, to_image, out):
    """The gradient to the coefficients of a Gaussian."""
    first, last = rows_of(c, tau, to_image.shape[0])
    tau2 = tau * tau
    e = ax = ay = axx = axy = ayy = _F(0)
    b = bx = by = bxx = bxy = byy = _F(0)
    for y in range(first, last + 1):
        dy = float32(int32(y)) - c[1]
        left, right = _span(c, dy, tau2, to_image.shape[1])
        if left <= right:
            n1, n0 = _F(2) * c[4] * dy, c[5] * dy * dy
            q1, q0 = _F(2) * (c[6] + c[9] * dy), _F(1) + _F(2) * c[7] * dy + c[10] * dy * dy
            row = to_image[y, left : right + 1]
            s, a0, a1, a2, b0, b1, b2 = _collect(row, float32(left) - c[0], c[3], n1, n0, c[8], q1, q0)
            e += s
            ax, ay, axx, axy, ayy = ax + a1, ay + a0 * dy, axx + a2, axy + a1 * dy, ayy + a0 * dy * dy
            b, bx, by = b + b0, bx + b1, by + b0 * dy
            bxx, bxy, byy = bxx + b2, bxy + b1 * dy, byy + b0 * dy * dy
    a = c[2]
    out[0] = _F(-2) * a * (c[3] * ax + c[4] * ay + c[6] * b + c[8] * bx + c[9] * by)
    out[1] = _F(-2) * a * (c[4] * ax + c[5] * ay + c[7] * b + c[9] * bx + c[10] * by)
    out[2] = e
    out[3], out[4], out[5] = a * axx, _F(2) * a * axy, a * ayy
    out[6], out[7] = _F(2) * a * bx, _F(2) * a * by
    out[8], out[9], out[10] = a * bxx, _F(2) * a * bxy, a * byy


@njit(**PARALLEL)
def footprint_rows(coefficients, cutoffs, height, rows):
    """First and last row of every Gaussian, ``rows [I, N, 2]``; last < first where nothing is drawn."""
    count, gaussians, _ = coefficients.shape
    total = count * gaussians
    for job in prange((total + _CHUNK - 1) // _CHUNK):
        for flat in range(job * _CHUNK, min(total, (job + 1) * _CHUNK)):
            image, k = flat // gaussians, flat % gaussians
            rows[image, k, 0], rows[image, k, 1] = rows_of(coefficients[image, k], cutoffs[image, k], height)


@njit(**PARALLEL)
def rasterize_forward(coefficients, cutoffs, rows, images, width, bands):
    """Add to ``images [I, H, W]``; a worker owns one of ``bands`` bands of rows of an image.

    W is ``width``, rounded up to whole `LANES`; nothing is added beyond ``width``.
    """
    count, gaussians, _ = coefficients.shape
    height = images.shape[1]
    for job in prange(count * bands):
        image, band = job // bands, job % bands
        top, bottom = int32(height * band // bands), int32(height * (band + 1) // bands - 1)
        for k in range(gaussians):
            first, last = max(rows[image, k, 0], top), min(rows[image, k, 1], bottom)
            if first <= last:
                tau = cutoffs[image, k]
                _add(coefficients[image, k], tau * tau, images[image], width, first, last)


@njit(**PARALLEL)
def rasterize_backward(coefficients, cutoffs, to_images, to_coefficients):
    """Fill the gradient to the coefficients; a worker owns one Gaussian in one image."""
    count, gaussians, _ = coefficients.shape
    total = count * gaussians
    for job in prange((total + _CHUNK - 1) // _CHUNK):
        for flat in range(job * _CHUNK, min(total, (job + 1) * _CHUNK)):
            image, k = flat // gaussians, flat % gaussians
            if cutoffs[image, k] > _F(0):
                _pull_back(coefficients[image, k], cutoffs[image, k], to_images[image], to_coefficients[image, k])
            else:
                to_coefficients[image, k][:] = _F(0)
