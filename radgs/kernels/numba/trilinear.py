"""Line integrals of a trilinearly interpolated volume: forward with ray gradients, and the adjoint.

Rays are ``source + t * direction`` in index coordinates, t the depth in mm along the camera's z axis. Values sit
at voxel centres and fall to zero within one voxel beyond the outermost ones, without the volume being padded:
samples that need a neighbour outside take a checked path, all others an unchecked one.
"""

import math

import numpy as np
from numba import float32, int32, njit, prange

from radgs.kernels.numba.options import EXACT, INNER, PARALLEL
from radgs.kernels.numba.rays import as_tuple, clip_box, direction, sample_range
from radgs.kernels.numba.support import BLOCK, BLOCK_Z

_F = np.float32
_NOTHING = (_F(0),) * 7
_TINY = _F(1e-3)  # of a voxel
_SLACK = 1e-3  # of a voxel, for the rounding of float32 samples


@njit(**INNER)
def _interior(values, row, plane, first, last, entry, slope, step, limit, want_gradient):
    """Sums over samples whose eight neighbours exist: value, gradient, gradient times depth past the entry."""
    total = gx = gy = gz = hx = hy = hz = _F(0)
    for k in range(first, last):
        t = (float32(int32(k)) + _F(0.5)) * step
        x = min(max(entry[0] + t * slope[0], _F(0)), limit[0])
        y = min(max(entry[1] + t * slope[1], _F(0)), limit[1])
        z = min(max(entry[2] + t * slope[2], _F(0)), limit[2])
        i, j, l = np.uint32(x), np.uint32(y), np.uint32(z)
        fx, fy, fz = x - _F(i), y - _F(j), z - _F(l)
        p = np.uintp(l) * plane + np.uintp(j) * row + np.uintp(i)
        a, b = values[p], values[p + np.uintp(1)]
        c, d = values[p + row], values[p + row + np.uintp(1)]
        e, f = values[p + plane], values[p + plane + np.uintp(1)]
        g, h = values[p + plane + row], values[p + plane + row + np.uintp(1)]
        ab, cd, ef, gh = a + fx * (b - a), c + fx * (d - c), e + fx * (f - e), g + fx * (h - g)
        low, high = ab + fy * (cd - ab), ef + fy * (gh - ef)
        total += low + fz * (high - low)
        if want_gradient:
            vz = high - low
            vy = (cd - ab) + fz * ((gh - ef) - (cd - ab))
            near, far = (b - a) + fy * ((d - c) - (b - a)), (f - e) + fy * ((h - g) - (f - e))
            vx = near + fz * (far - near)
            gx, gy, gz = gx + vx, gy + vy, gz + vz
            hx, hy, hz = hx + t * vx, hy + t * vy, hz + t * vz
    return total, gx, gy, gz, hx, hy, hz


@njit(**INNER)
def _boundary(volume, first, last, entry, slope, step):
    """The same sums where neighbours may lie outside and count as zero."""
    depth, height, width = volume.shape
    total = gx = gy = gz = hx = hy = hz = _F(0)
    for k in range(first, last):
        t = (float32(int32(k)) + _F(0.5)) * step
        x, y, z = entry[0] + t * slope[0], entry[1] + t * slope[1], entry[2] + t * slope[2]
        i, j, l = int32(math.floor(x)), int32(math.floor(y)), int32(math.floor(z))
        fx, fy, fz = x - float32(i), y - float32(j), z - float32(l)
        for corner in range(8):
            ci, cj, cl = i + (corner & 1), j + ((corner >> 1) & 1), l + (corner >> 2)
            if 0 <= ci < width and 0 <= cj < height and 0 <= cl < depth:
                value = volume[cl, cj, ci]
                wx, sx = (fx, _F(1)) if ci > i else (_F(1) - fx, _F(-1))
                wy, sy = (fy, _F(1)) if cj > j else (_F(1) - fy, _F(-1))
                wz, sz = (fz, _F(1)) if cl > l else (_F(1) - fz, _F(-1))
                total += value * wx * wy * wz
                vx, vy, vz = value * sx * wy * wz, value * wx * sy * wz, value * wx * wy * sz
                gx, gy, gz = gx + vx, gy + vy, gz + vz
                hx, hy, hz = hx + t * vx, hy + t * vy, hz + t * vz
    return total, gx, gy, gz, hx, hy, hz


@njit(**EXACT)
def _ray(origin, slope, shape, step):
    """Depth and index coordinates of the entry, and how many samples reach the far side."""
    high = (float(shape[2]), float(shape[1]), float(shape[0]))
    start, end = clip_box(0.0, np.inf, origin, slope, (-1.0, -1.0, -1.0), high)
    entry = (origin[0] + start * slope[0], origin[1] + start * slope[1], origin[2] + start * slope[2])
    return start, entry, int(np.ceil((end - start) / step))


@njit(**EXACT)
def _single(a):
    return _F(a[0]), _F(a[1]), _F(a[2])


@njit(**INNER)
def bounds(shape, box):
    """Between which index coordinates samples reach a voxel of ``box``, have all neighbours, and may be read."""
    inner = (shape[2] - 1.0, shape[1] - 1.0, shape[0] - 1.0)
    reach_low = (box[0, 0] - 1.0 - _SLACK, box[0, 1] - 1.0 - _SLACK, box[0, 2] - 1.0 - _SLACK)
    reach_high = (box[1, 0] + _SLACK, box[1, 1] + _SLACK, box[1, 2] + _SLACK)
    below = _F(1.0 - 1.2e-7)
    return reach_low, reach_high, inner, (_F(inner[0]) * below, _F(inner[1]) * below, _F(inner[2]) * below)


@njit(**INNER)
def _empty_near(occupied, k, entry, slope, step):
    """Whether samples as far from sample k as `reach` says read nothing but zeros."""
    t = (float32(int32(k)) + _F(0.5)) * step
    x, y, z = entry[0] + t * slope[0], entry[1] + t * slope[1], entry[2] + t * slope[2]
    depth, height, width = occupied.shape
    i = min(max(int32(x), 0) // int32(BLOCK), width - 1)  # what lies before the first block is as near to it
    j = min(max(int32(y), 0) // int32(BLOCK), height - 1)
    l = min(max(int32(z), 0) // int32(BLOCK_Z), depth - 1)
    return occupied[l, j, i] == 0


@njit(**INNER)
def _trimmed(occupied, begin, stop, entry, slope, step):
    """The samples ``begin`` to ``stop - 1`` without those at both ends that read zeros; only a few are looked at."""
    flat = max(abs(slope[0]), abs(slope[1])) * step
    half = int32(min(_F(BLOCK - 1) / max(flat, _TINY), _F(BLOCK_Z - 1) / max(abs(slope[2]) * step, _TINY)))
    stride = 2 * half + 1
    first = begin
    while first < stop and _empty_near(occupied, first + half, entry, slope, step):
        first += stride
    if first >= stop:
        return stop, stop
    last = first + (stop - 1 - first) // stride * stride
    while last > first and _empty_near(occupied, last + half, entry, slope, step):
        last -= stride
    return int32(first), int32(min(stop, last + stride))


@njit(**INNER)
def ray_sums(volume, limits, occupied, origin, slope, step, want_gradient):
    """Per mm of depth: the integral along a ray, and its gradient to source and direction (if wanted, else 0).

    ``origin`` and ``slope``: of the ray; ``limits``: of `bounds`; ``occupied``: of `radgs.kernels.numba.support`, or
    empty if it is not known.
    """
    shape = volume.shape
    reach_low, reach_high, inner, limit = limits
    start, entry, count = _ray(origin, slope, shape, step)
    if count <= 0:
        return _NOTHING
    end = start + count * step
    near, far = clip_box(start, end, origin, slope, reach_low, reach_high)
    begin, stop = sample_range(near, far, start, step, count)
    if occupied.size:
        begin, stop = _trimmed(occupied, begin, stop, _single(entry), _single(slope), _F(step))
    if begin >= stop:
        return _NOTHING
    near, far = clip_box(start, end, origin, slope, (0.0, 0.0, 0.0), inner)
    if shape[0] < 2 or shape[1] < 2 or shape[2] < 2:
        far = near  # a sample within a single slice has no second neighbour to read
    first, last = sample_range(near, far, start, step, count)
    first, last = min(max(first, begin), stop), max(min(last, stop), begin)
    last = max(first, last)
    e, s, dt = _single(entry), _single(slope), _F(step)
    row, plane = np.uintp(shape[2]), np.uintp(shape[2] * shape[1])
    a = _boundary(volume, begin, first, e, s, dt)
    b = _interior(volume.reshape(-1), row, plane, first, last, e, s, dt, limit, want_gradient)
    c = _boundary(volume, last, stop, e, s, dt)
    t0, total = _F(start), (a[0] + b[0] + c[0]) * dt
    gx, gy, gz = (a[1] + b[1] + c[1]) * dt, (a[2] + b[2] + c[2]) * dt, (a[3] + b[3] + c[3]) * dt
    hx, hy, hz = (a[4] + b[4] + c[4]) * dt, (a[5] + b[5] + c[5]) * dt, (a[6] + b[6] + c[6]) * dt
    return total, gx, gy, gz, t0 * gx + hx, t0 * gy + hy, t0 * gz + hz


@njit(**PARALLEL)
def trilinear_forward(volume, box, sources, directions, mm_per_depth, step_mm, image, gradient, want_gradient):
    """Fill ``image [V, H, W]`` and, if wanted, ``gradient [V, 6, H, W]`` (to source, to direction) per mm of depth.

    ``box``: of `support`; samples that reach no voxel inside it are skipped, which changes nothing but rounding.
    """
    views, height, width = image.shape
    unknown = np.empty((0, 0, 0), np.uint8)
    for job in prange(views * height):
        view, v, limits = job // height, job % height, bounds(volume.shape, box)
        for u in range(width):
            step = step_mm / mm_per_depth[view, v, u]
            slope = direction(directions[view], u, v)
            sums = ray_sums(volume, limits, unknown, as_tuple(sources[view]), slope, step, want_gradient)
            image[view, v, u] = sums[0]
            if want_gradient:
                for c in range(6):
                    gradient[view, c, v, u] = sums[c + 1]


@njit(**INNER)
def _scatter(volume, low, high, first, last, entry, slope, step, weight):
    """Add ``weight`` at the samples to the slices ``low..high-1``."""
    _, height, width = volume.shape
    for k in range(first, last):
        t = (float32(int32(k)) + _F(0.5)) * step
        x, y, z = entry[0] + t * slope[0], entry[1] + t * slope[1], entry[2] + t * slope[2]
        i, j, l = int32(math.floor(x)), int32(math.floor(y)), int32(math.floor(z))
        fx, fy, fz = x - float32(i), y - float32(j), z - float32(l)
        for cl in range(max(l, low), min(l + 2, high)):
            wz = weight * (fz if cl > l else _F(1) - fz)
            for cj in range(max(j, 0), min(j + 2, height)):
                wy = wz * (fy if cj > j else _F(1) - fy)
                for ci in range(max(i, 0), min(i + 2, width)):
                    volume[cl, cj, ci] += wy * (fx if ci > i else _F(1) - fx)


@njit(**PARALLEL)
def trilinear_adjoint(image_gradient, sources, directions, mm_per_depth, step_mm, volume_gradient, slabs):
    """Add the gradient to the volume; every worker owns slabs of slices, so sums have one order on any machine."""
    views, height, width = image_gradient.shape
    shape = volume_gradient.shape
    for slab in prange(slabs):
        low, high = shape[0] * slab // slabs, shape[0] * (slab + 1) // slabs
        for view in range(views):
            for v in range(height):
                for u in range(width):
                    step = step_mm / mm_per_depth[view, v, u]
                    slope = direction(directions[view], u, v)
                    start, entry, count = _ray(as_tuple(sources[view]), slope, shape, step)
                    weight = image_gradient[view, v, u] * _F(step)
                    if count > 0 and weight != _F(0):
                        near, far = clip_box(
                            start,
                            start + count * step,
                            as_tuple(sources[view]),
                            slope,
                            (-1.0, -1.0, low - 1.0 - 1e-3),
                            (shape[2] + 0.0, shape[1] + 0.0, high + 1e-3),
                        )
                        first, last = sample_range(near, far, start, step, count)
                        e, s = _single(entry), _single(slope)
                        _scatter(volume_gradient, low, high, first, last, e, s, _F(step), weight)
