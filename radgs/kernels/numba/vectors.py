"""Vectors and quaternions as tuples, which the compiler keeps in registers."""

import math

from numba import njit

from radgs.kernels.numba.options import INNER


@njit(**INNER)
def vector(x, first):
    """Three numbers of an array from ``first`` on, float64."""
    return float(x[first]), float(x[first + 1]), float(x[first + 2])


@njit(**INNER)
def dot(a, b):
    """The scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(**INNER)
def cross(a, b):
    """The vector product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@njit(**INNER)
def scaled(x, a):
    """A number times a vector."""
    return x * a[0], x * a[1], x * a[2]


@njit(**INNER)
def add(a, b):
    """The sum of two vectors."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@njit(**INNER)
def weighted(x, a, y, b, z, c):
    """The sum of three vectors with weights x, y, z."""
    return x * a[0] + y * b[0] + z * c[0], x * a[1] + y * b[1] + z * c[1], x * a[2] + y * b[2] + z * c[2]


@njit(**INNER)
def times(rows, a):
    """A matrix, as its rows, times a vector."""
    return dot(rows[0], a), dot(rows[1], a), dot(rows[2], a)


@njit(**INNER)
def transposed_times(rows, a):
    """The transpose of a matrix, given as the matrix's rows, times a vector."""
    return weighted(a[0], rows[0], a[1], rows[1], a[2], rows[2])


@njit(**INNER)
def unit(q):
    """A quaternion (w, x, y, z) divided by its length, and the length."""
    w, x, y, z = float(q[0]), float(q[1]), float(q[2]), float(q[3])
    length = math.sqrt(w * w + x * x + y * y + z * z)
    return w / length, x / length, y / length, z / length, length


@njit(**INNER)
def turned_axes(q):
    """The columns of the rotation of a quaternion (w, x, y, z) of any length."""
    w, x, y, z, _ = unit(q)
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)),
        (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)),
        (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)),
    )


@njit(**INNER)
def turned_axes_adjoint(q, d):
    """The gradient to a quaternion of any length from the gradients ``d`` to its `turned_axes`."""
    w, x, y, z, length = unit(q)
    to_w = 2 * (x * (d[1][2] - d[2][1]) + y * (d[2][0] - d[0][2]) + z * (d[0][1] - d[1][0]))
    to_x = 2 * (y * (d[0][1] + d[1][0]) + z * (d[0][2] + d[2][0]) + w * (d[1][2] - d[2][1]))
    to_y = 2 * (x * (d[0][1] + d[1][0]) + z * (d[1][2] + d[2][1]) + w * (d[2][0] - d[0][2]))
    to_z = 2 * (x * (d[0][2] + d[2][0]) + y * (d[1][2] + d[2][1]) + w * (d[0][1] - d[1][0]))
    to_x -= 4 * x * (d[1][1] + d[2][2])
    to_y -= 4 * y * (d[0][0] + d[2][2])
    to_z -= 4 * z * (d[0][0] + d[1][1])
    # The length of a quaternion turns nothing: what points along it is taken out.
    along = w * to_w + x * to_x + y * to_y + z * to_z
    return (
        (to_w - along * w) / length,
        (to_x - along * x) / length,
        (to_y - along * y) / length,
        (to_z - along * z) / length,
    )
