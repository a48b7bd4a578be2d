"""Radiative Gaussians to the 11 coefficients of `radgs.kernels.numba.rasterize`, and the adjoint of that by hand.

A camera is 24 numbers: [R | t] by rows, the first two rows of K, the first two columns of K^-1. With p the mean, e_i
the own axes and s_i the scales of a Gaussian, in a cone beam

    m = R p + t     the centre in camera axes      A_i = R e_i / s_i             the rows of the whitening
    r = m / m_z     its ray                        w = A r,  b_j = A K^-1_j,  h = 1 / w.w
    (u, v) = K r    a = density sqrt(2 pi h)       G_jk = m_z^2 h (w x b_j).(w x b_k),  g_j = h w.b_j,  Q_jk = h b_j.b_k

In a parallel beam r is the z axis, (u, v) = K (m_x, m_y, 1), G has no factor m_z^2, and g and Q are zero.
The arithmetic is float64: the source is a metre away from what is a tenth of a millimetre wide. One worker owns a
Gaussian in all its views; what cameras get is summed by chunks of Gaussians, in one order.
"""

import math

import numpy as np
from numba import njit, prange

from radgs.kernels.numba.options import INNER, PARALLEL
from radgs.kernels.numba.rasterize import rows_of
from radgs.kernels.numba.vectors import (
    add,
    cross,
    dot,
    scaled,
    times,
    transposed_times,
    turned_axes,
    turned_axes_adjoint,
    vector,
    weighted,
)

# A fixed number whatever the threads, for it decides how the sums over Gaussians are rounded.
CHUNK = 64
# Products of two such numbers still are float32: no Gaussian is thinner than 1e-9 pixels.
LARGEST = 1e18
_ROOT = math.sqrt(2 * math.pi)


@njit(**INNER)
def _rotation(camera):
    return vector(camera, 0), vector(camera, 4), vector(camera, 8)


@njit(**INNER)
def _seen(p, s, axes, camera, cone):
    """m, r, the rows of A, w, b_1 and b_2."""
    rotation = _rotation(camera)
    m = add(times(rotation, p), (camera[3], camera[7], camera[11]))
    ray = (m[0] / m[2], m[1] / m[2], 1.0) if cone else (0.0, 0.0, 1.0)
    whitening = (
        scaled(1 / s[0], times(rotation, axes[0])),
        scaled(1 / s[1], times(rotation, axes[1])),
        scaled(1 / s[2], times(rotation, axes[2])),
    )
    b1, b2 = times(whitening, vector(camera, 18)), times(whitening, vector(camera, 21))
    return m, ray, whitening, times(whitening, ray), b1, b2


@njit(**INNER)
def _project(p, s, axes, density, camera, cutoff, cone, out):
    """Write the coefficients; return the cut-off, or 0 and zeros where nothing is to be drawn.

    That is where the image is not bounded, or its numbers too large.
    """
    out[:] = 0
    if not cutoff > 0:
        return 0.0
    m, ray, whitening, w, b1, b2 = _seen(p, s, axes, camera, cone)
    along = whitening[0][2] * s[0] ** 2, whitening[1][2] * s[1] ** 2, whitening[2][2] * s[2] ** 2
    if cone and not m[2] > cutoff * math.sqrt(dot(along, along)):
        return 0.0
    h = 1 / dot(w, w)
    c1, c2 = cross(w, b1), cross(w, b2)
    point, k = (ray, m[2] * m[2] * h) if cone else ((m[0], m[1], 1.0), h)
    out[0], out[1] = dot(vector(camera, 12), point), dot(vector(camera, 15), point)
    out[2] = density * _ROOT * math.sqrt(h)
    out[3], out[4], out[5] = k * dot(c1, c1), k * dot(c1, c2), k * dot(c2, c2)
    if cone:
        out[6], out[7] = h * dot(w, b1), h * dot(w, b2)
        out[8], out[9], out[10] = h * dot(b1, b1), h * dot(b1, b2), h * dot(b2, b2)
    # What is off the diagonals of G and Q is no larger than what is on them.
    if not max(abs(out[0]), abs(out[1]), out[3], out[5], out[8], out[10]) < LARGEST:
        out[:] = 0
        return 0.0
    return cutoff


@njit(**INNER)
def _to_whitened(to, density, depth, w, b1, b2, cone):
    """From the gradient to the coefficients: to w, b_1, b_2, and to m_z where it stands in G."""
    h = 1 / dot(w, w)
    c1, c2 = cross(w, b1), cross(w, b2)
    of_g = to[3] * dot(c1, c1) + to[4] * dot(c1, c2) + to[5] * dot(c2, c2)
    k = depth * depth * h
    to_c1 = weighted(2 * k * to[3], c1, k * to[4], c2, 0.0, w)
    to_c2 = weighted(k * to[4], c1, 2 * k * to[5], c2, 0.0, w)
    to_w, to_b1, to_b2 = add(cross(b1, to_c1), cross(b2, to_c2)), cross(to_c1, w), cross(to_c2, w)
    to_h = to[2] * density * 0.5 * _ROOT / math.sqrt(h) + depth * depth * of_g
    if cone:
        to_h += to[6] * dot(w, b1) + to[7] * dot(w, b2)
        to_h += to[8] * dot(b1, b1) + to[9] * dot(b1, b2) + to[10] * dot(b2, b2)
        to_w = add(to_w, weighted(h * to[6], b1, h * to[7], b2, 0.0, w))
        to_b1 = add(to_b1, weighted(h * to[6], w, 2 * h * to[8], b1, h * to[9], b2))
        to_b2 = add(to_b2, weighted(h * to[7], w, h * to[9], b1, 2 * h * to[10], b2))
    return add(to_w, scaled(-2 * to_h * h * h, w)), to_b1, to_b2, 2 * depth * h * of_g


@njit(**INNER)
def _to_centre(to, m, ray, whitening, to_w, to_depth, camera, cone):
    """The gradient to m."""
    to_point = weighted(to[0], vector(camera, 12), to[1], vector(camera, 15), 0.0, ray)
    if not cone:
        return to_point[0], to_point[1], 0.0
    to_ray = scaled(1 / m[2], add(to_point, transposed_times(whitening, to_w)))
    return to_ray[0], to_ray[1], to_depth - to_ray[0] * ray[0] - to_ray[1] * ray[1]


@njit(**INNER)
def _add_to_camera(to_m, p, to_seen, axes, out):
    """To [R | t], of which R turns the mean and the own axes."""
    for i in range(3):
        for j in range(3):
            of_axes = to_seen[0][i] * axes[0][j] + to_seen[1][i] * axes[1][j] + to_seen[2][i] * axes[2][j]
            out[4 * i + j] += of_axes + to_m[i] * p[j]
        out[4 * i + 3] += to_m[i]


@njit(**INNER)
def _pull_back(p, s, axes, density, camera, cone, to, to_camera):
    """The gradients to the mean, the scales, the own axes and the density; that to the camera is added to its own."""
    m, ray, whitening, w, b1, b2 = _seen(p, s, axes, camera, cone)
    to_w, to_b1, to_b2, to_depth = _to_whitened(to, density, m[2] if cone else 1.0, w, b1, b2, cone)
    to_m = _to_centre(to, m, ray, whitening, to_w, to_depth, camera, cone)
    k1, k2 = vector(camera, 18), vector(camera, 21)
    row0 = weighted(to_w[0], ray, to_b1[0], k1, to_b2[0], k2)
    row1 = weighted(to_w[1], ray, to_b1[1], k1, to_b2[1], k2)
    row2 = weighted(to_w[2], ray, to_b1[2], k1, to_b2[2], k2)
    to_scales = -dot(row0, whitening[0]) / s[0], -dot(row1, whitening[1]) / s[1], -dot(row2, whitening[2]) / s[2]
    to_seen = scaled(1 / s[0], row0), scaled(1 / s[1], row1), scaled(1 / s[2], row2)
    _add_to_camera(to_m, p, to_seen, axes, to_camera)
    point = ray if cone else (m[0], m[1], 1.0)
    of_k1, of_k2 = transposed_times(whitening, to_b1), transposed_times(whitening, to_b2)
    for i in range(3):
        to_camera[12 + i] += to[0] * point[i]
        to_camera[15 + i] += to[1] * point[i]
        to_camera[18 + i] += of_k1[i]
        to_camera[21 + i] += of_k2[i]
    back = _rotation(camera)
    to_axes = transposed_times(back, to_seen[0]), transposed_times(back, to_seen[1]), transposed_times(back, to_seen[2])
    return transposed_times(back, to_m), to_scales, to_axes, to[2] * _ROOT / math.sqrt(dot(w, w))


@njit(**PARALLEL)
def project(means, scales, quaternions, densities, cameras, cutoffs, cone, height, coefficients, ends, rows):
    """Fill ``coefficients [B, V, N, 11]``, the cut-offs ``ends [B, V, N]`` and footprints ``rows [B, V, N, 2]``."""
    scenes, gaussians, _ = means.shape
    chunks = (gaussians + CHUNK - 1) // CHUNK
    for job in prange(scenes * chunks):
        scene, chunk = job // chunks, job % chunks
        for k in range(chunk * CHUNK, min(gaussians, (chunk + 1) * CHUNK)):
            p, s, axes = vector(means[scene, k], 0), vector(scales[scene, k], 0), turned_axes(quaternions[scene, k])
            for view in range(cameras.shape[1]):
                out = coefficients[scene, view, k]
                tau = cutoffs[scene, k]
                tau = _project(p, s, axes, float(densities[scene, k]), cameras[scene, view], tau, cone, out)
                ends[scene, view, k] = tau
                rows[scene, view, k, 0], rows[scene, view, k, 1] = rows_of(out, np.float32(tau), height)


@njit(**INNER)
def _pull_back_views(p, s, quaternion, density, cameras, ends, cone, to_coefficients, to_cameras):
    """The gradients to a Gaussian, summed over its views."""
    axes, to_density = turned_axes(quaternion), 0.0
    to_p = to_s = to_x = to_y = to_z = (0.0, 0.0, 0.0)
    for view in range(len(cameras)):
        if ends[view] > 0:
            to = to_coefficients[view]
            of_p, of_s, of_axes, of_density = _pull_back(p, s, axes, density, cameras[view], cone, to, to_cameras[view])
            to_p, to_s, to_density = add(to_p, of_p), add(to_s, of_s), to_density + of_density
            to_x, to_y, to_z = add(to_x, of_axes[0]), add(to_y, of_axes[1]), add(to_z, of_axes[2])
    return to_p, to_s, turned_axes_adjoint(quaternion, (to_x, to_y, to_z)), to_density


@njit(**PARALLEL)
def project_adjoint(
    means, scales, quaternions, densities, cameras, ends, cone, to_coefficients,
    to_means, to_scales, to_quaternions, to_densities, to_cameras,
):  # fmt: skip
    """Fill the gradients to the Gaussians, and to the cameras by chunks of Gaussians, ``[B, chunks, V, 24]``."""
    scenes, gaussians, _ = means.shape
    chunks = to_cameras.shape[1]
    for job in prange(scenes * chunks):
        scene, chunk = job // chunks, job % chunks
        to_cameras[scene, chunk] = 0
        for k in range(chunk * CHUNK, min(gaussians, (chunk + 1) * CHUNK)):
            to_p, to_s, to_q, to_density = _pull_back_views(
                vector(means[scene, k], 0), vector(scales[scene, k], 0), quaternions[scene, k],
                float(densities[scene, k]), cameras[scene], ends[scene, :, k], cone, to_coefficients[scene, :, k],
                to_cameras[scene, chunk],
            )  # fmt: skip
            for i in range(3):
                to_means[scene, k, i], to_scales[scene, k, i] = to_p[i], to_s[i]
            for i in range(4):
                to_quaternions[scene, k, i] = to_q[i]
            to_densities[scene, k] = to_density
