// A Gaussian on the image: amplitude a, n = d'Gd, q = 1 + 2 g.d + d'Qd at offset d from its centre, all in pixels.
// It adds a q^(-1/2) exp(-n / 2q) where n <= cutoff^2 q; the maths is that of radgs/kernels/numba/rasterize.py.
#pragma once

#include "exponential.cuh"

constexpr int kCoefficients = 11;

struct Splat {
    float u, v, a, gxx, gxy, gyy, gx, gy, qxx, qxy, qyy;
    float tau2;  // square of the cut-off; 0 leaves it out
};

// Whole pixels, both ends included; empty: right < left.
struct PixelBox {
    int left, right, top, bottom;
};

__device__ inline Splat load_splat(const float* c, float cutoff) {
    return {c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], cutoff * cutoff};
}

__device__ inline float numerator(const Splat& s, float dx, float dy) {
    return dx * (s.gxx * dx + 2.0f * s.gxy * dy) + s.gyy * dy * dy;
}

__device__ inline float denominator(const Splat& s, float dx, float dy) {
    return 1.0f + dx * (2.0f * s.gx + s.qxx * dx + 2.0f * s.qxy * dy) + dy * (2.0f * s.gy + s.qyy * dy);
}

// Pixels from one before `low` to one beyond `high`, inside 0 .. size-1: rounding must not lose one at the rim, where
// the test n <= cutoff^2 q decides.
__device__ inline void pad_to_pixels(float low, float high, int size, int& first, int& last) {
    first = static_cast<int>(ceilf(fminf(fmaxf(low - 1.0f, 0.0f), static_cast<float>(size))));
    last = static_cast<int>(floorf(fmaxf(fminf(high + 1.0f, static_cast<float>(size - 1)), -1.0f)));
}

// The box about the ellipse d'Md - 2 tau^2 g.d <= tau^2, M = G - tau^2 Q; empty where that is not an ellipse
// and where the Gaussian is left out.
__device__ inline PixelBox footprint(const Splat& s, int height, int width) {
    const float tau2 = s.tau2;
    const float mx = s.gxx - tau2 * s.qxx, mc = s.gxy - tau2 * s.qxy, my = s.gyy - tau2 * s.qyy;
    const float determinant = mx * my - mc * mc;
    if (!(tau2 > 0.0f && mx > 0.0f && determinant > 0.0f)) return {0, -1, 0, -1};
    const float x = tau2 * (my * s.gx - mc * s.gy) / determinant;
    const float y = tau2 * (mx * s.gy - mc * s.gx) / determinant;
    const float scale = fmaxf(tau2 * (1.0f + s.gx * x + s.gy * y) / determinant, 0.0f);
    const float half_x = sqrtf(scale * my), half_y = sqrtf(scale * mx);
    PixelBox box;
    pad_to_pixels(s.u + x - half_x, s.u + x + half_x, width, box.left, box.right);
    pad_to_pixels(s.v + y - half_y, s.v + y + half_y, height, box.top, box.bottom);
    return box;
}
