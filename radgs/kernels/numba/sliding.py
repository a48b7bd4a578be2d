"""Normalised correlations of small pictures with windows of larger ones, for every whole shift up to a radius.

A Fourier transform computes all shifts; those wanted are few. They are summed directly, all at once: for one column of
the picture, the columns of the window that its shifts reach lie one row after the other, so that one row further down
is so many numbers further on.
"""

import numpy as np
from numba import njit, prange

from radgs.kernels.numba.options import INNER, PARALLEL

_F = np.float32
_TINY = 1e-9
_ROWS = 4  # of a picture that are added at once


@njit(**INNER)
def _add_four(a, b, c, d, at, after, third, last, out):
    for s in range(out.shape[0]):
        out[s] += a * at[s] + b * after[s] + c * third[s] + d * last[s]


@njit(**INNER)
def _add_difference(plus, minus, out):
    for s in range(out.shape[0]):
        out[s] += plus[s] - minus[s]


@njit(**INNER)
def _strip(window, u, shifts, strip):
    """Fill ``strip [rows, shifts]`` with the columns of a window that a picture's column reaches; zeros below."""
    for v in range(window.shape[0]):
        strip[v] = window[v, u : u + shifts]
    strip[window.shape[0] :] = _F(0)


@njit(**INNER)
def _slid(picture, ends, window, shifts, out):
    """Add to ``out [shifts * shifts]`` the sums of products of a picture ``[h, w]`` and a window's shifted pixels."""
    strip = np.empty((window.shape[0] + _ROWS, shifts), _F)
    flat, n = strip.reshape(-1), out.shape[0]
    for u in range(picture.shape[1]):
        if ends[u, 1] > ends[u, 0]:
            _strip(window, u, shifts, strip)
            for v in range(ends[u, 0], ends[u, 1], _ROWS):
                a, b, c, d = picture[v, u], picture[v + 1, u], picture[v + 2, u], picture[v + 3, u]
                i, j, k, l = v * shifts, (v + 1) * shifts, (v + 2) * shifts, (v + 3) * shifts
                _add_four(a, b, c, d, flat[i : i + n], flat[j : j + n], flat[k : k + n], flat[l : l + n], out)


@njit(**INNER)
def _slid_mask(weight, ends, window, shifts, out):
    """The same of a picture of zeros and ones: differences of sums down the strip, where they begin and end."""
    strip = np.empty((window.shape[0] + 1, shifts), _F)
    flat, n = strip.reshape(-1), out.shape[0]
    for u in range(weight.shape[1]):
        if ends[u, 1] > ends[u, 0]:
            strip[0] = _F(0)
            for v in range(window.shape[0]):
                strip[v + 1] = strip[v] + window[v, u : u + shifts]
            first = ends[u, 0]
            for v in range(ends[u, 0], ends[u, 1]):
                if weight[v, u] != _F(0) and (v == first or weight[v - 1, u] == _F(0)):
                    first = v
                if weight[v, u] != _F(0) and weight[v + 1, u] == _F(0):
                    i, j = (v + 1) * shifts, first * shifts
                    _add_difference(flat[i : i + n], flat[j : j + n], out)


@njit(**INNER)
def _cut(image, top, left, out):
    """Fill ``out`` with a window of an image, 0 beyond it."""
    height, width = image.shape
    first, last = min(max(-left, 0), out.shape[1]), max(min(width - left, out.shape[1]), 0)
    for v in range(out.shape[0]):
        out[v] = _F(0)
        if 0 <= top + v < height and first < last:
            out[v, first:last] = image[top + v, left + first : left + last]


@njit(**INNER)
def _near(shown, rim, weight):
    """Fill ``weight`` with 1 within ``rim`` steps (along u and v) of what is shown, else 0."""
    weight[:] = _F(0)
    height, width = shown.shape
    for v in range(height):
        for u in range(width):
            if shown[v, u]:
                for y in range(max(v - rim, 0), min(v + rim + 1, height)):
                    reach = rim - abs(y - v)
                    for x in range(max(u - reach, 0), min(u + reach + 1, width)):
                        weight[y, x] = _F(1)


@njit(**INNER)
def _column_ends(weight, ends):
    """Fill ``ends [w, 2]`` with where each column's weights begin and end."""
    for u in range(ends.shape[0]):
        ends[u, 0], ends[u, 1] = weight.shape[0], 0
    for v in range(weight.shape[0]):
        for u in range(ends.shape[0]):
            if weight[v, u] != _F(0):
                ends[u, 0], ends[u, 1] = min(ends[u, 0], v), v + 1


@njit(**INNER)
def _all_one(window):
    total = np.float64(0)
    for v in range(window.shape[0]):
        for u in range(window.shape[1]):
            total += window[v, u]
    return total == window.size


@njit(**PARALLEL)
def slide(pictures, shown, places, rim, images, measured, least, out):
    """Fill ``out [J, n, n]`` with correlations by shift along v and u, the middle one being none.

    Args:
        pictures: ``[J, 2, h, w]``.
        shown: ``[J, h, w]`` bool, around which pictures are compared.
        places: ``[J, 4]`` image; row and column in it of the picture's first pixel; largest shift, whole pixels.
        rim: how far around what is shown.
        images: ``[V, 2, H, W]``.
        measured: ``[V, H, W]`` 1 or 0.
        least: of a picture's strength on measured pixels; where less was measured is 0.
    """
    jobs, _, height, width = pictures.shape
    for job in prange(jobs):
        view, top, left, radius = places[job]
        shifts = 2 * radius + 1
        out[job] = _F(0)
        weight, ends = np.zeros((height + _ROWS, width), _F), np.empty((width, 2), np.int64)
        _near(shown[job], rim, weight[:height])
        _column_ends(weight, ends)
        window = np.empty((2, height + 2 * radius, width + 2 * radius), _F)
        taps, strength = np.zeros_like(weight), np.zeros_like(weight)
        sums = np.zeros((3, shifts * shifts), _F)
        for part in range(2):
            _cut(images[view, part], top - radius, left - radius, window[part])
            taps[:height] = pictures[job, part] * weight[:height]
            strength += taps * taps
            _slid(taps, ends, window[part], shifts, sums[0])
        _slid_mask(weight, ends, window[0] * window[0] + window[1] * window[1], shifts, sums[1])
        total = strength.sum()
        _cut(measured[view], top - radius, left - radius, window[0])
        whole = _all_one(window[0])
        if not whole:
            _slid(strength, ends, window[0], shifts, sums[2])
        middle = out.shape[1] // 2 - radius
        for s in range(shifts * shifts):
            if whole or sums[2, s] > least * total:
                energy = max(float(sums[1, s]) * total, _TINY)
                out[job, middle + s // shifts, middle + s % shifts] = _F(sums[0, s] / np.sqrt(energy))


@njit(**PARALLEL)
def along_axes(slid, owners, steps, values, out):
    """Fill ``out [L, n, n, n]`` with sums over views of ``slid [J, s, s]``, interpolated where shifts in space go.

    Args:
        slid: of `slide`; 0 beyond.
        owners: ``[J]`` the level of each, ascending.
        steps: ``[J, 2, 3]`` pixels (v, u) a unit of each axis.
        values: ``[n]`` shifts along each axis.
    """
    side, count = slid.shape[1], len(values)
    middle = side // 2
    for level in prange(out.shape[0]):
        out[level] = 0
        for job in range(len(owners)):
            if owners[job] == level:
                by = steps[job]
                for i in range(count):
                    for j in range(count):
                        v0 = middle + by[0, 0] * values[i] + by[0, 1] * values[j]
                        u0 = middle + by[1, 0] * values[i] + by[1, 1] * values[j]
                        for k in range(count):
                            v, u = v0 + by[0, 2] * values[k], u0 + by[1, 2] * values[k]
                            if 0 <= v < side - 1 and 0 <= u < side - 1:
                                y, x = int(v), int(u)
                                fv, fu = v - y, u - x
                                a = slid[job, y, x] * (1 - fu) + slid[job, y, x + 1] * fu
                                b = slid[job, y + 1, x] * (1 - fu) + slid[job, y + 1, x + 1] * fu
                                out[level, i, j, k] += a * (1 - fv) + b * fv
