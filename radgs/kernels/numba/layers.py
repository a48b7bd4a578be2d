"""Line integrals of a bent volume, in layers.

Each of several rigid motions holds at one height, and between two heights both are mixed. A sample of a ray looks its
height up, mixes the places where the two motions take it, and adds what the volume holds there to the two layers that
its depth lies between.
"""

import numpy as np
from numba import float32, int32, int64, njit, prange

from radgs.kernels.numba.options import INNER, PARALLEL
from radgs.kernels.numba.rays import clip_box, direction

_F = np.float32


@njit(**INNER)
def _value(values, shape, x, y, z):
    """Trilinear; nothing beyond the centres of the outermost voxels."""
    if not (x >= _F(0) and y >= _F(0) and z >= _F(0)):
        return _F(0)
    i, j, l = int64(x), int64(y), int64(z)  # a wild motion's index may be no int32
    if i >= shape[2] - 1 or j >= shape[1] - 1 or l >= shape[0] - 1:
        return _F(0)
    fx, fy, fz = x - float32(i), y - float32(j), z - float32(l)
    row, plane = shape[2], shape[2] * shape[1]
    p = l * plane + j * row + i
    a, b, c, d = values[p], values[p + 1], values[p + row], values[p + row + 1]
    p += plane
    e, f, g, h = values[p], values[p + 1], values[p + row], values[p + row + 1]
    ab, cd, ef, gh = a + fx * (b - a), c + fx * (d - c), e + fx * (f - e), g + fx * (h - g)
    low, high = ab + fy * (cd - ab), ef + fy * (gh - ef)
    return low + fz * (high - low)


@njit(**INNER)
def _range(sources, directions, u, v, shape):
    """Depths between which the ray is in the volume, moved one way or another."""
    high = (shape[2] - 1.0, shape[1] - 1.0, shape[0] - 1.0)
    near, far = np.inf, -np.inf
    for k in range(sources.shape[0]):
        origin = (sources[k, 0], sources[k, 1], sources[k, 2])
        a, b = clip_box(0.0, np.inf, origin, direction(directions[k], u, v), (0.0, 0.0, 0.0), high)
        if b > a:
            near, far = min(near, a), max(far, b)
    return near, far


@njit(**PARALLEL)
def bent_layers(volume, sources, directions, rise_of, heights, mm_per_depth, step_mm, ends, wanted, image):
    """Fill ``image [L, H, W]`` with integrals over depth.

    Args:
        volume: ``[D, H, W]``.
        sources: ``[K, 3]`` the X-ray source in index coordinates, by motion.
        directions: ``[K, 3, 3]``; times (u, v, 1), index coordinates per mm of depth.
        rise_of: ``[3]``; times (u, v, 1), height per mm of depth; the source's height is 0.
        heights: ``[K]`` where each motion holds, ascending.
        mm_per_depth: ``[H, W]``.
        step_mm: distance of samples.
        ends: depths of the first and the last layer.
        wanted: ``[H, W]`` bool; other pixels are 0.
        image: at least two layers.
    """
    layers, rows, columns = image.shape
    motions, shape, values = sources.shape[0], volume.shape, volume.reshape(-1)
    knots = heights.astype(np.float32)
    per_mm = _F((layers - 1) / (ends[1] - ends[0]))
    for v in prange(rows):
        entry, slope = np.empty((motions, 3), np.float32), np.empty((motions, 3), np.float32)
        for u in range(columns):
            for layer in range(layers):
                image[layer, v, u] = _F(0)
            if not wanted[v, u]:
                continue
            near, far = _range(sources, directions, u, v, shape)
            if not far > near:
                continue
            for k in range(motions):
                along = direction(directions[k], u, v)
                for axis in range(3):
                    entry[k, axis] = _F(sources[k, axis] + near * along[axis])
                    slope[k, axis] = _F(along[axis])
            rise = rise_of[0] * u + rise_of[1] * v + rise_of[2]
            first, rise = _F(near * rise), _F(rise)
            depth0 = _F(near - ends[0])
            step = _F(step_mm / mm_per_depth[v, u])
            k = 0
            for sample in range(int(np.ceil((far - near) / step))):
                t = (float32(int32(sample)) + _F(0.5)) * step
                x, y, z = entry[k, 0] + t * slope[k, 0], entry[k, 1] + t * slope[k, 1], entry[k, 2] + t * slope[k, 2]
                if motions > 1:
                    height = first + t * rise
                    while k < motions - 2 and height > knots[k + 1]:
                        k += 1
                    while k > 0 and height < knots[k]:
                        k -= 1
                    b = min(max((height - knots[k]) / (knots[k + 1] - knots[k]), _F(0)), _F(1))
                    a, n = _F(1) - b, k + 1
                    x = a * (entry[k, 0] + t * slope[k, 0]) + b * (entry[n, 0] + t * slope[n, 0])
                    y = a * (entry[k, 1] + t * slope[k, 1]) + b * (entry[n, 1] + t * slope[n, 1])
                    z = a * (entry[k, 2] + t * slope[k, 2]) + b * (entry[n, 2] + t * slope[n, 2])
                value = _value(values, shape, x, y, z) * step
                at = min(max((depth0 + t) * per_mm, _F(0)), _F(layers - 1))
                layer = min(int(at), layers - 2)
                share = at - float32(layer)
                image[layer, v, u] += (_F(1) - share) * value
                image[layer + 1, v, u] += share * value
