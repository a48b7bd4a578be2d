// A Gaussian on a grid, in voxels: density exp(-s/2) where the square s <= cutoff^2. With the inverse covariance S and
// its Schur complements, s = Sxx ex^2 + Ayy ey^2 + Bzz ez^2: never negative, whatever is rounded.
// The maths is that of radgs/kernels/numba/voxelize.py.
#pragma once

#include "exponential.cuh"
#include "lists.cuh"

constexpr int kCoefficients = 10;

struct Ellipsoid {
    float x, y, z, density;
    float sxx, kxy, kxz;  // ex = dx + kxy dy + kxz dz
    float ayy, kyz;       // ey = dy + kyz dz
    float bzz;            // ez = dz; 0: flat beyond float32 or left out, nothing is drawn
    float tau2;           // square of the cut-off
};

using VoxelBox = Box<3>;

// An ellipsoid with -log2(e) / 2 multiplied in: 2^power is wanted where the power is not below `least`.
struct alignas(16) Listed {
    float x, y, z, density, least, sxx, kxy, kxz, ayy, kyz, bzz;

    // At (dx, dy, dz) from the centre; along = dx + kxy dy.
    __device__ float power(float along, float dy, float dz) const {
        const float ex = along + kxz * dz, ey = dy + kyz * dz;
        return sxx * ex * ex + ayy * ey * ey + bzz * dz * dz;
    }
};

__device__ inline Ellipsoid load_ellipsoid(const float* c, float cutoff) {
    Ellipsoid e{c[0], c[1], c[2], c[3], c[4], 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, cutoff * cutoff};
    if (!(cutoff > 0.0f && c[4] > 0.0f)) return e;
    e.kxy = c[5] / c[4], e.kxz = c[6] / c[4];
    e.ayy = c[7] - c[5] * e.kxy;
    const float ayz = c[8] - c[5] * e.kxz, azz = c[9] - c[6] * e.kxz;
    if (!(e.ayy > 0.0f)) return e;
    e.kyz = ayz / e.ayy;
    e.bzz = fmaxf(azz - ayz * e.kyz, 0.0f);
    return e;
}

__device__ inline Listed prepare(const Ellipsoid& e) {
    return {e.x,   e.y,           e.z, e.density, kPower * e.tau2, kPower * e.sxx, e.kxy, e.kxz, kPower * e.ayy,
            e.kyz, kPower * e.bzz};
}

// The box about the cut-off ellipsoid, half as wide as cutoff times the root of the covariance's diagonal, one voxel
// wider on each side: rounding must not lose one at the rim, where the test s <= cutoff^2 decides.
__device__ inline VoxelBox reach(const Ellipsoid& e, int depth, int height, int width) {
    if (!(e.bzz > 0.0f)) return {{0, 0, 0}, {-1, -1, -1}};
    const float skew = e.kxy * e.kyz - e.kxz, vz = 1.0f / e.bzz, vy = 1.0f / e.ayy + e.kyz * e.kyz * vz;
    const float vx = 1.0f / e.sxx + e.kxy * e.kxy / e.ayy + skew * skew * vz;
    const float centre[3] = {e.x, e.y, e.z}, variance[3] = {vx, vy, vz};
    const int size[3] = {width, height, depth};
    VoxelBox box;
    for (int axis = 0; axis < 3; ++axis) {
        const float half = sqrtf(e.tau2 * variance[axis]) + 1.0f;
        box.first[axis] =
            static_cast<int>(ceilf(fminf(fmaxf(centre[axis] - half, 0.0f), static_cast<float>(size[axis]))));
        box.last[axis] = static_cast<int>(floorf(fmaxf(fminf(centre[axis] + half, size[axis] - 1.0f), -1.0f)));
    }
    return box;
}
