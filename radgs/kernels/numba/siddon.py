"""Line integrals of a volume of boxes (Siddon, Med. Phys. 1985): exact path lengths, ray gradients, the adjoint.

Every plane crossing is computed from the plane's index; adding up steps would add up their rounding errors. Voxel
i spans i - 1/2 to i + 1/2; rays are as in `trilinear.py`.
"""

import numpy as np
from numba import float32, int32, njit, prange

from radgs.kernels.numba.options import EXACT, INNER, PARALLEL
from radgs.kernels.numba.rays import as_tuple, clip_box, direction

_F = np.float32


@njit(**EXACT)
def _enter(source, direction_from_pixel, u, v, low, high):
    """Entry of a ray into the box of voxels ``low..high-1``: hit, depth, entry, slope, voxel, axis crossed there."""
    slope = direction(direction_from_pixel, u, v)
    origin = as_tuple(source)
    first = (low[0] - 0.5, low[1] - 0.5, low[2] - 0.5)
    last = (high[0] - 0.5, high[1] - 0.5, high[2] - 0.5)
    start, end = clip_box(0.0, np.inf, origin, slope, first, last)
    entry = (origin[0] + start * slope[0], origin[1] + start * slope[1], origin[2] + start * slope[2])
    axis = -1
    if start > 0.0:
        distance = np.inf
        for a in range(3):
            d = min(abs(entry[a] - first[a]), abs(entry[a] - last[a]))
            if d < distance and abs(slope[a]) > 1e-12:
                axis, distance = a, d
    x = min(max(int(np.floor(entry[0] + 0.5)), low[0]), high[0] - 1)
    y = min(max(int(np.floor(entry[1] + 0.5)), low[1]), high[1] - 1)
    z = min(max(int(np.floor(entry[2] + 0.5)), low[2]), high[2] - 1)
    return end > start, start, entry, slope, (int32(x), int32(y), int32(z)), axis


@njit(**INNER)
def _plane(voxel, entry, slope):
    """Depth past the entry where a ray leaves ``voxel`` along one axis, the inverse slope, and the way it goes."""
    if abs(slope) < 1e-12:
        return _F(3e38), _F(0), int32(0)
    inverse = _F(1.0 / slope)
    way = int32(1) if slope > 0 else int32(-1)
    return (float32(voxel) + _F(0.5) * float32(way) - _F(entry)) * inverse, inverse, way


@njit(**INNER)
def _traverse(volume, start, entry, slope, voxel, axis, low, high, scatter, weight):
    """Walk a ray. Reads the volume and returns (integral, 3 + 3 gradient); or adds ``weight`` times lengths to it."""
    x, y, z = voxel
    tx, ix, wx = _plane(x, entry[0], slope[0])
    ty, iy, wy = _plane(y, entry[1], slope[1])
    tz, iz, wz = _plane(z, entry[2], slope[2])
    ex, ey, ez = _F(entry[0]), _F(entry[1]), _F(entry[2])
    half = _F(0.5)
    t0, t = _F(start), _F(0)
    total = gx = gy = gz = hx = hy = hz = _F(0)
    before = _F(0)
    while True:
        value = _F(0)
        if not scatter:
            value = volume[z, y, x]
            # Depth t of a crossing moves by -1 / slope per unit of source and by -t / slope per unit of slope.
            jump = value - before
            if axis == 0:
                gx, hx = gx + jump * ix, hx + jump * ix * (t0 + t)
            elif axis == 1:
                gy, hy = gy + jump * iy, hy + jump * iy * (t0 + t)
            elif axis == 2:
                gz, hz = gz + jump * iz, hz + jump * iz * (t0 + t)
        before = value
        vx, vy, vz = x, y, z
        if tx <= ty and tx <= tz:
            following, axis = tx, 0
            x += wx
            tx = (float32(x) + half * float32(wx) - ex) * ix
        elif ty <= tz:
            following, axis = ty, 1
            y += wy
            ty = (float32(y) + half * float32(wy) - ey) * iy
        else:
            following, axis = tz, 2
            z += wz
            tz = (float32(z) + half * float32(wz) - ez) * iz
        if scatter:
            volume[vz, vy, vx] += weight * (following - t)
        else:
            total += value * (following - t)
        t = following
        if x < low[0] or x >= high[0] or y < low[1] or y >= high[1] or z < low[2] or z >= high[2]:
            break
    if axis == 0:
        gx, hx = gx - before * ix, hx - before * ix * (t0 + t)
    elif axis == 1:
        gy, hy = gy - before * iy, hy - before * iy * (t0 + t)
    else:
        gz, hz = gz - before * iz, hz - before * iz * (t0 + t)
    return total, gx, gy, gz, hx, hy, hz


@njit(**PARALLEL)
def siddon_forward(volume, box, sources, directions, image, gradient, want_gradient):
    """Fill ``image [V, H, W]`` and, if wanted, ``gradient [V, 6, H, W]`` (to source, to direction) per mm of depth.

    ``box``: of `support`; the volume is 0 outside it.
    """
    views, height, width = image.shape
    low, high = as_tuple(box[0]), as_tuple(box[1])
    for job in prange(views * height):
        view, v = job // height, job % height
        for u in range(width):
            hit, start, entry, slope, voxel, axis = _enter(sources[view], directions[view], u, v, low, high)
            image[view, v, u] = _F(0)
            if want_gradient:
                for c in range(6):
                    gradient[view, c, v, u] = _F(0)
            if hit:
                sums = _traverse(volume, start, entry, slope, voxel, axis, low, high, False, _F(0))
                image[view, v, u] = sums[0]
                if want_gradient:
                    for c in range(6):
                        gradient[view, c, v, u] = sums[1 + c]


@njit(**PARALLEL)
def siddon_adjoint(image_gradient, sources, directions, volume_gradient, slabs):
    """Add the gradient to the volume; every worker owns slabs of slices, so sums have one order on any machine."""
    views, height, width = image_gradient.shape
    depth = volume_gradient.shape[0]
    for slab in prange(slabs):
        low = (0, 0, depth * slab // slabs)
        high = (volume_gradient.shape[2], volume_gradient.shape[1], depth * (slab + 1) // slabs)
        for view in range(views):
            for v in range(height):
                for u in range(width):
                    weight = image_gradient[view, v, u]
                    if weight != _F(0):
                        hit, start, entry, slope, voxel, axis = _enter(sources[view], directions[view], u, v, low, high)
                        if hit:
                            _traverse(volume_gradient, start, entry, slope, voxel, axis, low, high, True, weight)
