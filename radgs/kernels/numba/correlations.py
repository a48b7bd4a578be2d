"""Correlations of drawn and seen images near each of several parts, and their quadratic models, from sums over pixels.

The same as `radgs.kernels.correlation_reference`, without a copy of all images for each step: one matrix of products
of all rows (nuisances, moving, still, derivatives) holds everything but the residuals of single pixels.
"""

import numpy as np
from numba import int64, njit, prange

from radgs.kernels.correlation_reference import LEAST_CURVATURE, LEAST_DEVIATION, OUTLIER, RIDGE, ROBUST_STEPS
from radgs.kernels.numba.options import INNER, PARALLEL
from radgs.kernels.numba.products import dot, products, times

_F = np.float32
_TINY = 1e-9
_SHORTEST = 1e-6
_MAD = 1.4826  # standard deviations of a normal distribution to a median deviation


@njit(**INNER)
def _add(out, factor, row):
    for i in range(out.shape[0]):
        out[i] += factor * row[i]


@njit(**INNER)
def _strengths(gram, nuisances, count):
    """What of each nuisance explains most of the rows after them, ``[k, count - k]``, and the ridge that held it."""
    k = nuisances
    ridge, lower = np.empty(k), np.zeros((k, k))
    out = gram[:k, k:count].copy()
    for i in range(k):
        ridge[i] = RIDGE * gram[i, i] + _TINY
        for j in range(i + 1):
            value = gram[i, j] + (ridge[i] if i == j else 0.0)
            for l in range(j):
                value -= lower[i, l] * lower[j, l]
            lower[i, j] = np.sqrt(max(value, _TINY * _TINY)) if i == j else value / lower[j, j]
    for column in range(count - k):
        for i in range(k):
            for l in range(i):
                out[i, column] -= lower[i, l] * out[l, column]
            out[i, column] /= lower[i, i]
        for i in range(k - 1, -1, -1):
            for l in range(i + 1, k):
                out[i, column] -= lower[l, i] * out[l, column]
            out[i, column] /= lower[i, i]
    return out, ridge


@njit(**INNER)
def _rest(gram, strengths, ridge, row, column):
    """The product of two rows after the nuisances; rows and columns count from the first that is no nuisance."""
    k = len(ridge)
    value = gram[k + row, k + column]
    for i in range(k):
        value -= strengths[i, row] * (gram[i, k + column] + ridge[i] * strengths[i, column])
    return value


@njit(**INNER)
def _without(rows, strengths, nuisances, row, out):
    """A row after the nuisances."""
    out[:] = rows[nuisances + row]
    for i in range(nuisances):
        _add(out, _F(-strengths[i, row]), rows[i])


@njit(**INNER)
def _cauchy(residual, scale, weights):
    for i in range(residual.shape[0]):
        far = residual[i] * scale
        weights[i] = _F(1) / (_F(1) + far * far)


@njit(**INNER)
def _doubt(rows, nuisances, gram, weights):
    """Fill ``weights``: small where moving and still image differ more than they usually do."""
    pixels = rows.shape[1]
    weights[:] = _F(1)
    products(rows, nuisances + 2, weights, gram)
    strengths, _ = _strengths(gram, nuisances, nuisances + 2)
    moving, still = np.empty(pixels, np.float32), np.empty(pixels, np.float32)
    _without(rows, strengths, nuisances, 0, moving)
    _without(rows, strengths, nuisances, 1, still)
    weighted, residual = np.empty(pixels, np.float32), np.empty(pixels, np.float32)
    least = LEAST_DEVIATION * np.sqrt(dot(still, still) / pixels)
    middle = (pixels - 1) // 2
    for _ in range(ROBUST_STEPS):
        times(weighted, weights, moving)
        strength = dot(weighted, still) / (dot(weighted, moving) + _TINY)
        residual[:] = still
        _add(residual, _F(-strength), moving)
        deviation = _MAD * np.partition(np.abs(residual), middle)[middle] + least + _TINY
        _cauchy(residual, _F(1 / (OUTLIER * deviation)), weights)


@njit(**INNER)
def _look(image, pixels, row):
    for n in range(pixels.shape[0]):
        row[n] = image[pixels[n, 0], pixels[n, 1]]


@njit(**INNER)
def _gather(drawn, starts, windows, seen, axis, pixels, touching, rows):
    """Fill ``rows`` with nuisances, the sum of what is drawn, the X-ray, and the touching parts' derivatives."""
    nuisances, count = seen.shape[0] - 1, pixels.shape[0]
    for k in range(nuisances):
        _look(seen[k + 1, axis], pixels, rows[k])
    rows[nuisances, :] = _F(0)
    _look(seen[0, axis], pixels, rows[nuisances + 1])
    for at in range(len(touching)):
        part = touching[at]
        y0, y1, x0, x1 = windows[part]
        width = x1 - x0
        plane = 2 * (y1 - y0) * width
        base = starts[part] + axis * (y1 - y0) * width
        first = nuisances + 2 + 6 * at
        for n in range(count):
            y, x = pixels[n, 0], pixels[n, 1]
            if y0 <= y < y1 and x0 <= x < x1:
                place = base + (y - y0) * width + x - x0
                rows[nuisances, n] += drawn[place]
                for k in range(6):
                    rows[first + k, n] = drawn[place + (k + 1) * plane]
            else:
                for k in range(6):
                    rows[first + k, n] = _F(0)


@njit(**INNER)
def _touches(drawn, start, window, pixels):
    """Whether a part shows at any of the pixels."""
    y0, y1, x0, x1 = window
    for n in range(pixels.shape[0]):
        y, x = pixels[n, 0], pixels[n, 1]
        if y0 <= y < y1 and x0 <= x < x1 and drawn[start + (y - y0) * (x1 - x0) + x - x0] != _F(0):
            return True
    return False


@njit(**INNER)
def _centre(rows, weights):
    """Take each row's weighted mean away."""
    total = np.float64(0)
    for n in range(len(weights)):
        total += weights[n]
    for k in range(rows.shape[0]):
        mean = _F(dot(rows[k], weights) / total)
        for n in range(rows.shape[1]):
            rows[k, n] -= mean


@njit(**INNER)
def _model(gram, strengths, ridge, touching, gradient, hessian):
    """Fill the gradient and the Hessian of one minus the correlation; the correlation and both images' lengths."""
    length = max(np.sqrt(max(_rest(gram, strengths, ridge, 0, 0), 0.0)), _SHORTEST)
    other = max(np.sqrt(max(_rest(gram, strengths, ridge, 1, 1), 0.0)), _SHORTEST)
    value = _rest(gram, strengths, ridge, 0, 1) / (length * other)
    gradient[:], hessian[:] = 0, 0
    parameters = 6 * len(touching)
    along = np.empty(parameters)
    for i in range(parameters):
        along[i] = _rest(gram, strengths, ridge, 2 + i, 0) / length
    curvature = max(value, LEAST_CURVATURE) / length**2
    for i in range(parameters):
        row = 6 * touching[i // 6] + i % 6
        gradient[row] = (along[i] * value - _rest(gram, strengths, ridge, 2 + i, 1) / other) / length
        for j in range(i + 1):
            column = 6 * touching[j // 6] + j % 6
            both = curvature * (_rest(gram, strengths, ridge, 2 + i, 2 + j) - along[i] * along[j])
            hessian[row, column] = hessian[column, row] = both
    return value, length, other


@njit(**INNER)
def _residuals(rows, nuisances, weights, strengths, model, own, jacobian, residual):
    """Fill what is left at each pixel: of the own part's derivatives ``[6, n]`` and of the still image ``[n]``."""
    value, length, other = model
    roots, moving = np.sqrt(weights), np.empty(rows.shape[1], np.float32)
    _without(rows, strengths, nuisances, 0, moving)
    times(moving, moving, roots)
    moving *= _F(1 / length)
    for k in range(6):
        row = jacobian[k]
        _without(rows, strengths, nuisances, 2 + 6 * own + k, row)
        times(row, row, roots)
        _add(row, -dot(row, moving), moving)
        row *= _F(1 / length)
    _without(rows, strengths, nuisances, 1, residual)
    times(residual, residual, roots)
    residual *= _F(1 / other)
    _add(residual, _F(-value), moving)


@njit(**PARALLEL)
def correlate(drawn, starts, windows, seen, pixels, ends, value, gradient, hessian, jacobian, residual):
    """Compare every part's surroundings, along both directions.

    Args:
        drawn: all parts' images ``[7, 2, h, w]`` (value and six derivatives; along u and v) in one row.
        starts: ``[P]`` where each begins.
        windows: ``[P, 4]`` rows from, to, columns from, to.
        seen: ``[1 + k, 2, H, W]`` the X-ray and the nuisances.
        pixels: ``[N, 2]`` row and column of what is compared, part by part.
        ends: ``[P + 1]`` where each part's pixels begin and end.
        value: ``[P, 2]``; filled.
        gradient: ``[P, 2, 6 P]``; filled.
        hessian: ``[P, 2, 6 P, 6 P]``; filled.
        jacobian: ``[2, 6, N]``, of the part itself; filled.
        residual: ``[2, N]``; filled.
    """
    parts, nuisances = len(starts), seen.shape[0] - 1
    for job in prange(2 * parts):
        own, axis = job // 2, job % 2
        first, last = ends[own], ends[own + 1]
        value[own, axis], gradient[own, axis], hessian[own, axis] = 0, 0, 0
        if last > first:
            mine = pixels[first:last]
            touching = np.empty(parts, np.int64)
            count = place = int64(0)
            for part in range(parts):
                if part == own or _touches(drawn, starts[part], windows[part], mine):
                    if part == own:
                        place = count
                    touching[count] = part
                    count += 1
            touching = touching[:count]
            rows = np.empty((nuisances + 2 + 6 * count, last - first), np.float32)
            weights = np.ones(last - first, np.float32)
            gram = np.empty((rows.shape[0], rows.shape[0]))
            _gather(drawn, starts, windows, seen, axis, mine, touching, rows)
            _centre(rows, weights)
            _doubt(rows, nuisances, gram, weights)
            _centre(rows, weights)
            products(rows, rows.shape[0], weights, gram)
            strengths, ridge = _strengths(gram, nuisances, rows.shape[0])
            model = _model(gram, strengths, ridge, touching, gradient[own, axis], hessian[own, axis])
            value[own, axis] = model[0]
            columns, left = jacobian[axis, :, first:last], residual[axis, first:last]
            _residuals(rows, nuisances, weights, strengths, model, place, columns, left)
