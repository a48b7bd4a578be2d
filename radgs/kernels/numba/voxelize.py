"""Radiative Gaussians to voxels, from 10 coefficients for each Gaussian.

Coefficients, in voxels: centre x, y, z; density; the inverse covariance Sxx, Sxy, Sxz, Syy, Syz, Szz. Completing the
square along x, then y, gives the exact span of every row of voxel centres within the cut-off ellipsoid. A cut-off of
0 leaves the Gaussian out.
"""

import math

import numpy as np
from numba import float32, int32, njit, prange

from radgs.kernels.numba.exponential import exp_half
from radgs.kernels.numba.lanes import LANES, whole_lanes
from radgs.kernels.numba.options import INNER, PARALLEL

_F = np.float32
_CHUNK = 16


@njit(**INNER)
def _schur(c):
    """1/Sxx; Schur complements Ayz, Ayy and 1/Ayy of x; Bzz of x and y. Bzz = 0: flat beyond float32, skip."""
    if not c[4] > _F(0):
        return _F(0), _F(0), _F(0), _F(0), _F(0)
    ix = _F(1) / c[4]
    ayy, ayz, azz = c[7] - c[5] * c[5] * ix, c[8] - c[5] * c[6] * ix, c[9] - c[6] * c[6] * ix
    if not ayy > _F(0):
        return _F(0), _F(0), _F(0), _F(0), _F(0)
    iy = _F(1) / ayy
    return ix, ayz, ayy, iy, max(azz - ayz * ayz * iy, _F(0))


@njit(**INNER)
def _within(centre, half, first, last):
    """Whole numbers in ``centre - half .. centre + half`` and in ``first .. last``."""
    low = min(max(centre - half, _F(first)), _F(last + 1))
    high = max(min(centre + half, _F(last)), _F(first - 1))
    return int32(math.ceil(low)), int32(math.floor(high))


@njit(**INNER)
def _fill(row, low, high, ex0, density, sxx, base):
    """Add to a row of whole `LANES` what lies in columns ``low`` to ``high``; ``ex0`` is the offset of its first."""
    for block in range(row.shape[0] // LANES):
        for lane in range(LANES):
            i = block * LANES + lane
            column = float32(int32(i))
            ex = ex0 + column
            value = density * exp_half(sxx * ex * ex + base)
            row[i] += value if (column >= low) & (column <= high) else _F(0)


@njit(**INNER)
def _collect(row, ex0, shift, sxx, base):
    """Over a row: sums of E / density, times dx, times dx^2, with dx = ex - shift from the Gaussian's centre."""
    e0 = e1 = e2 = _F(0)
    for i in range(row.shape[0]):
        ex = ex0 + float32(int32(i))
        e = row[i] * exp_half(sxx * ex * ex + base)
        moment = e * ex
        e0, e1, e2 = e0 + e, e1 + moment, e2 + moment * ex
    return e0, e1 - shift * e0, e2 - shift * (_F(2) * e1 - shift * e0)


@njit(**INNER)
def _add(c, tau, volume, width, front, back):
    """Add a Gaussian to the slices ``front`` to ``back``, of which ``width`` columns are wanted."""
    _, height, columns = volume.shape
    tau2 = tau * tau
    ix, ayz, ayy, iy, bzz = _schur(c)
    if not bzz > _F(0):
        return
    z_first, z_last = _within(c[2], tau / math.sqrt(bzz), front, back)
    for z in range(z_first, z_last + 1):
        dz = float32(int32(z)) - c[2]
        rest = max(tau2 - bzz * dz * dz, _F(0))
        cy = c[1] - ayz * dz * iy
        y_first, y_last = _within(cy, math.sqrt(rest * iy), int32(0), int32(height - 1))
        for y in range(y_first, y_last + 1):
            ey = float32(int32(y)) - cy
            left = max(rest - ayy * ey * ey, _F(0))
            cx = c[0] - (c[5] * (float32(int32(y)) - c[1]) + c[6] * dz) * ix
            x_first, x_last = _within(cx, math.sqrt(left * ix), int32(0), int32(width - 1))
            if x_first <= x_last:
                start, stop = whole_lanes(x_first, x_last, columns)
                low, high = float32(x_first - start), float32(x_last - start)
                _fill(volume[z, y, start:stop], low, high, float32(start) - cx, c[3], c[4], tau2 - left)


@njit(**INNER)
def _pull_back(c, tau, to_volume, out):
    """The gradient to the coefficients of a Gaussian."""
    depth, height, width = to_volume.shape
    tau2 = tau * tau
    m = mx = my = mz = xx = xy = xz = yy = yz = zz = _F(0)
    ix, ayz, ayy, iy, bzz = _schur(c)
    if bzz > _F(0) and tau > _F(0):
        z_first, z_last = _within(c[2], tau / math.sqrt(bzz), int32(0), int32(depth - 1))
        for z in range(z_first, z_last + 1):
            dz = float32(int32(z)) - c[2]
            rest = max(tau2 - bzz * dz * dz, _F(0))
            cy = c[1] - ayz * dz * iy
            s = sx = sy = sxx = sxy = syy = _F(0)
            y_first, y_last = _within(cy, math.sqrt(rest * iy), int32(0), int32(height - 1))
            for y in range(y_first, y_last + 1):
                dy, ey = float32(int32(y)) - c[1], float32(int32(y)) - cy
                left = max(rest - ayy * ey * ey, _F(0))
                shift = (c[5] * dy + c[6] * dz) * ix
                cx = c[0] - shift
                x_first, x_last = _within(cx, math.sqrt(left * ix), int32(0), int32(width - 1))
                if x_first <= x_last:
                    row = to_volume[z, y, x_first : x_last + 1]
                    e0, e1, e2 = _collect(row, float32(x_first) - cx, shift, c[4], tau2 - left)
                    s, sx, sy = s + e0, sx + e1, sy + e0 * dy
                    sxx, sxy, syy = sxx + e2, sxy + e1 * dy, syy + e0 * dy * dy
            m, mx, my, mz = m + s, mx + sx, my + sy, mz + s * dz
            xx, xy, xz = xx + sxx, xy + sxy, xz + sx * dz
            yy, yz, zz = yy + syy, yz + sy * dz, zz + s * dz * dz
    density = c[3]
    out[0] = density * (c[4] * mx + c[5] * my + c[6] * mz)
    out[1] = density * (c[5] * mx + c[7] * my + c[8] * mz)
    out[2] = density * (c[6] * mx + c[8] * my + c[9] * mz)
    out[3] = m
    out[4], out[5], out[6] = _F(-0.5) * density * xx, -density * xy, -density * xz
    out[7], out[8], out[9] = _F(-0.5) * density * yy, -density * yz, _F(-0.5) * density * zz


@njit(**PARALLEL)
def voxelize_forward(coefficients, cutoffs, volumes, width, slabs):
    """Add to ``volumes [B, D, H, W]``; a worker owns one of ``slabs`` slabs of slices of a volume.

    W is ``width``, rounded up to whole `LANES`; nothing is added beyond ``width``.
    """
    batch, gaussians, _ = coefficients.shape
    depth = volumes.shape[1]
    for job in prange(batch * slabs):
        volume, slab = job // slabs, job % slabs
        front, back = int32(depth * slab // slabs), int32(depth * (slab + 1) // slabs - 1)
        for k in range(gaussians):
            if cutoffs[volume, k] > _F(0):
                _add(coefficients[volume, k], cutoffs[volume, k], volumes[volume], width, front, back)


@njit(**PARALLEL)
def voxelize_backward(coefficients, cutoffs, to_volumes, to_coefficients):
    """Fill the gradient to the coefficients; a worker owns one Gaussian."""
    batch, gaussians, _ = coefficients.shape
    total = batch * gaussians
    for job in prange((total + _CHUNK - 1) // _CHUNK):
        for flat in range(job * _CHUNK, min(total, (job + 1) * _CHUNK)):
            volume, k = flat // gaussians, flat % gaussians
            _pull_back(coefficients[volume, k], cutoffs[volume, k], to_volumes[volume], to_coefficients[volume, k])
