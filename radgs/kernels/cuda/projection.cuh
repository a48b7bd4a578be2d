// A Gaussian seen by a camera; the maths, and the names, are those of radgs/kernels/numba/project.py. float64: the source
// is a metre away from what is a tenth of a millimetre wide.
#pragma once

#include "vectors.cuh"

constexpr int kCamera = 24;
constexpr double kRootTwoPi = 2.5066282746310002;
// Products of two such numbers still are float32: no Gaussian is thinner than 1e-9 pixels.
constexpr double kLargest = 1e18;

// [R | t] by rows, two rows of K, two columns of K^-1.
struct Camera {
    const double* c;
    __device__ Matrix rotation() const { return {{load_vector(c), load_vector(c + 4), load_vector(c + 8)}}; }
    __device__ Vector translation() const { return {c[3], c[7], c[11]}; }
    __device__ Vector k(int row) const { return load_vector(c + 12 + 3 * row); }
    __device__ Vector inverse(int column) const { return load_vector(c + 18 + 3 * column); }
};

// Own axes as rows: the transpose of the rotation of the unit quaternion.
struct Gaussian {
    Vector mean, scales;
    Matrix axes;
    double density;
};

__device__ inline double length_of(const float* q) {
    return sqrt(double(q[0]) * q[0] + double(q[1]) * q[1] + double(q[2]) * q[2] + double(q[3]) * q[3]);
}

__device__ inline Gaussian load_gaussian(const float* mean, const float* scales, const float* q, float density) {
    const double length = length_of(q), w = q[0] / length, x = q[1] / length, y = q[2] / length, z = q[3] / length;
    return {load_vector(mean),
            load_vector(scales),
            {{{1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)},
              {2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)},
              {2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)}}},
            density};
}

// The gradient to a quaternion of any length from that to the own axes.
__device__ inline void store_to_quaternion(const float* q, const Matrix& to_axes, float* out) {
    const double length = length_of(q), w = q[0] / length, x = q[1] / length, y = q[2] / length, z = q[3] / length;
    const Vector &a = to_axes.rows[0], &b = to_axes.rows[1], &c = to_axes.rows[2];
    const double to_w = 2 * (x * (b.z - c.y) + y * (c.x - a.z) + z * (a.y - b.x));
    const double to_x = 2 * (y * (a.y + b.x) + z * (a.z + c.x) + w * (b.z - c.y)) - 4 * x * (b.y + c.z);
    const double to_y = 2 * (x * (a.y + b.x) + z * (b.z + c.y) + w * (c.x - a.z)) - 4 * y * (a.x + c.z);
    const double to_z = 2 * (x * (a.z + c.x) + y * (b.z + c.y) + w * (a.y - b.x)) - 4 * z * (a.x + b.y);
    // The length of a quaternion turns nothing: what points along it is taken out.
    const double along = w * to_w + x * to_x + y * to_y + z * to_z;
    out[0] = static_cast<float>((to_w - along * w) / length), out[1] = static_cast<float>((to_x - along * x) / length);
    out[2] = static_cast<float>((to_y - along * y) / length), out[3] = static_cast<float>((to_z - along * z) / length);
}

// Centre m, ray r and the point that K takes to the image, whitening A, w = A r, b_j = A K^-1_j.
struct Seen {
    Vector m, ray, point;
    Matrix whitening;
    Vector w, b1, b2;
};

__device__ inline Seen see(const Gaussian& g, const Camera& camera, bool cone) {
    const Matrix rotation = camera.rotation();
    Seen s;
    s.m = rotation * g.mean + camera.translation();
    s.ray = cone ? Vector{s.m.x / s.m.z, s.m.y / s.m.z, 1.0} : Vector{0.0, 0.0, 1.0};
    s.point = cone ? s.ray : Vector{s.m.x, s.m.y, 1.0};
    s.whitening = {{(1 / g.scales.x) * (rotation * g.axes.rows[0]), (1 / g.scales.y) * (rotation * g.axes.rows[1]),
                    (1 / g.scales.z) * (rotation * g.axes.rows[2])}};
    s.w = s.whitening * s.ray;
    s.b1 = s.whitening * camera.inverse(0), s.b2 = s.whitening * camera.inverse(1);
    return s;
}

// The coefficients; the cut-off, 0 where the image is not bounded or its numbers too large.
__device__ inline float project_gaussian(const Gaussian& g, const Camera& camera, float cutoff, bool cone,
                                         double (&out)[11]) {
    const Seen s = see(g, camera, cone);
    const Matrix& a = s.whitening;
    const Vector along = {a.rows[0].z * g.scales.x * g.scales.x, a.rows[1].z * g.scales.y * g.scales.y,
                          a.rows[2].z * g.scales.z * g.scales.z};
    const double h = 1 / dot(s.w, s.w), k = cone ? s.m.z * s.m.z * h : h, of_ray = cone ? h : 0.0;
    const Vector c1 = cross(s.w, s.b1), c2 = cross(s.w, s.b2);
    out[0] = dot(camera.k(0), s.point), out[1] = dot(camera.k(1), s.point);
    out[2] = g.density * kRootTwoPi * sqrt(h);
    out[3] = k * dot(c1, c1), out[4] = k * dot(c1, c2), out[5] = k * dot(c2, c2);
    out[6] = of_ray * dot(s.w, s.b1), out[7] = of_ray * dot(s.w, s.b2);
    out[8] = of_ray * dot(s.b1, s.b1), out[9] = of_ray * dot(s.b1, s.b2), out[10] = of_ray * dot(s.b2, s.b2);
    bool drawn = cutoff > 0.0f && (!cone || s.m.z > cutoff * sqrt(dot(along, along)));
    // What is off the diagonals of G and Q is no larger than what is on them.
    for (int i : {0, 1, 3, 5, 8, 10}) drawn = drawn && fabs(out[i]) < kLargest;
    return drawn ? cutoff : 0.0f;
}

// The gradient to what `see` makes of a Gaussian.
struct ToSeen {
    Vector m, w, b1, b2;
};

__device__ inline ToSeen pull_back_coefficients(const Seen& s, double density, const Camera& camera, bool cone,
                                                const float* to) {
    const double h = 1 / dot(s.w, s.w), depth = cone ? s.m.z : 1.0, k = depth * depth * h, ray = cone ? h : 0.0;
    const Vector c1 = cross(s.w, s.b1), c2 = cross(s.w, s.b2);
    const double of_g = to[3] * dot(c1, c1) + to[4] * dot(c1, c2) + to[5] * dot(c2, c2);
    const Vector to_c1 = k * (2.0 * to[3] * c1 + to[4] * c2), to_c2 = k * (to[4] * c1 + 2.0 * to[5] * c2);
    double to_h = to[2] * density * 0.5 * kRootTwoPi / sqrt(h) + depth * depth * of_g;
    if (cone) {
        to_h += to[6] * dot(s.w, s.b1) + to[7] * dot(s.w, s.b2);
        to_h += to[8] * dot(s.b1, s.b1) + to[9] * dot(s.b1, s.b2) + to[10] * dot(s.b2, s.b2);
    }
    ToSeen out;
    out.w = cross(s.b1, to_c1) + cross(s.b2, to_c2) + ray * (to[6] * s.b1 + to[7] * s.b2) + (-2 * to_h * h * h) * s.w;
    out.b1 = cross(to_c1, s.w) + ray * (to[6] * s.w + 2.0 * to[8] * s.b1 + to[9] * s.b2);
    out.b2 = cross(to_c2, s.w) + ray * (to[7] * s.w + to[9] * s.b1 + 2.0 * to[10] * s.b2);
    const Vector to_point = to[0] * camera.k(0) + to[1] * camera.k(1);
    if (cone) {
        const Vector to_ray = (1 / s.m.z) * (to_point + transposed_times(s.whitening, out.w));
        out.m = {to_ray.x, to_ray.y, 2 * depth * h * of_g - to_ray.x * s.ray.x - to_ray.y * s.ray.y};
    } else {
        out.m = {to_point.x, to_point.y, 0.0};
    }
    return out;
}
