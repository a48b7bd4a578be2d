// A Gaussian on the image: amplitude a, n = d'Gd, q = 1 + 2 g.d + d'Qd at offset d from its centre, all in pixels.
// It adds a q^(-1/2) exp(-n / 2q) where n <= cutoff^2 q; the maths is that of radgs/kernels/numba/rasterize.py.
#pragma once

#include "exponential.cuh"
#include "lists.cuh"

constexpr int kCoefficients = 11;

struct alignas(16) Splat {
    float u, v, a, gxx, gxy, gyy, gx, gy, qxx, qxy, qyy;
    float tau2;  // square of the cut-off; 0 leaves it out
};

using PixelBox = Box<2>;

__device__ inline Splat load_splat(const float* c, float cutoff) {
    return {c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], cutoff * cutoff};
}

// Where it is drawn: offsets e from (x, y), relative to the Gaussian's centre, with e'Me <= room, M = G - tau^2 Q.
struct Ellipse {
    float x, y, mx, mc, my, room, determinant;

    // Nothing is drawn where that is not an ellipse and where the Gaussian is left out.
    __device__ bool exists() const { return room > 0.0f && mx > 0.0f && determinant > 0.0f; }
};

__device__ inline Ellipse ellipse_of(const Splat& s) {
    Ellipse e{};
    e.mx = s.gxx - s.tau2 * s.qxx, e.mc = s.gxy - s.tau2 * s.qxy, e.my = s.gyy - s.tau2 * s.qyy;
    e.determinant = e.mx * e.my - e.mc * e.mc;
    e.x = s.tau2 * (e.my * s.gx - e.mc * s.gy) / e.determinant;
    e.y = s.tau2 * (e.mx * s.gy - e.mc * s.gx) / e.determinant;
    e.room = s.tau2 * (1.0f + s.gx * e.x + s.gy * e.y);
    return e;
}

// Pixels from one before `low` to one beyond `high`, inside 0 .. size-1: rounding must not lose one at the rim, where
// the test n <= cutoff^2 q decides.
__device__ inline void pad_to_pixels(float low, float high, int size, int& first, int& last) {
    first = static_cast<int>(ceilf(fminf(fmaxf(low - 1.0f, 0.0f), static_cast<float>(size))));
    last = static_cast<int>(floorf(fmaxf(fminf(high + 1.0f, static_cast<float>(size - 1)), -1.0f)));
}

// The box about the ellipse.
__device__ inline PixelBox footprint(const Splat& s, int height, int width) {
    const Ellipse e = ellipse_of(s);
    if (!e.exists()) return {{0, 0}, {-1, -1}};
    const float scale = e.room / e.determinant;
    const float half_x = sqrtf(scale * e.my), half_y = sqrtf(scale * e.mx);
    PixelBox box;
    pad_to_pixels(s.u + e.x - half_x, s.u + e.x + half_x, width, box.first[0], box.last[0]);
    pad_to_pixels(s.v + e.y - half_y, s.v + e.y + half_y, height, box.first[1], box.last[1]);
    return box;
}

// The least e'Me less what rounding may have added to it: thin ellipses are differences of large numbers.
__device__ inline float least_square(const Ellipse& e, float x, float y) {
    const float xx = e.mx * x * x, xy = 2.0f * e.mc * x * y, yy = e.my * y * y;
    return xx + xy + yy - 1e-6f * (xx + fabsf(xy) + yy);
}

// Whether the ellipse meets a tile of pixels, one more on each side. e'Me is convex: over a rectangle it is least at
// the centre or on one of the two lines through the rectangle's point nearest to it, parallel to the axes.
__device__ inline bool meets(const Splat& s, float left, float top, float edge) {
    const Ellipse e = ellipse_of(s);
    const float low_x = left - 1.0f - s.u - e.x, high_x = low_x + edge + 1.0f;
    const float low_y = top - 1.0f - s.v - e.y, high_y = low_y + edge + 1.0f;
    const float x = fminf(fmaxf(0.0f, low_x), high_x), y = fminf(fmaxf(0.0f, low_y), high_y);
    const float on_x = fminf(fmaxf(-e.mc * x / e.my, low_y), high_y),
                on_y = fminf(fmaxf(-e.mc * y / e.mx, low_x), high_x);
    return least_square(e, x, on_x) <= e.room || least_square(e, on_y, y) <= e.room;
}
