// Radiative Gaussians to 11 coefficients for each Gaussian and view, their footprints, and the adjoint, by hand.
#include "cooperate.cuh"
#include "footprint.cuh"
#include "projection.cuh"

static_assert(sizeof(PixelBox) == 16, "operations.py gives it this room");
// Fewer than elsewhere: float64 needs registers.
constexpr int kProjectThreads = 128;

// One thread a Gaussian and view: coefficients [B, V, N, 11], cut-offs and boxes [B, V, N].
extern "C" __global__ void __launch_bounds__(kProjectThreads, 4)
    project(const float* __restrict__ means, const float* __restrict__ scales, const float* __restrict__ quaternions,
            const float* __restrict__ densities, const double* __restrict__ cameras,
            const float* __restrict__ cutoffs, int cone, int views, int gaussians, long long total, int height,
            int width, float* __restrict__ coefficients, float* __restrict__ ends, PixelBox* __restrict__ boxes) {
    const long long i = static_cast<long long>(blockIdx.x) * kProjectThreads + threadIdx.x;
    if (i >= total) return;
    const long long image = i / gaussians, k = image / views * gaussians + i % gaussians;
    const Gaussian g = load_gaussian(means + 3 * k, scales + 3 * k, quaternions + 4 * k, densities[k]);
    double found[kCoefficients];
    const float cutoff = project_gaussian(g, Camera{cameras + image * kCamera}, cutoffs[k], cone != 0, found);
    float* out = coefficients + i * kCoefficients;
#pragma unroll
    for (int j = 0; j < kCoefficients; ++j) out[j] = cutoff > 0.0f ? static_cast<float>(found[j]) : 0.0f;
    ends[i] = cutoff;
    boxes[i] = footprint(load_splat(out, cutoff), height, width);
}

// The sums over a warp's Gaussians of what they give to a camera, written by its first lane. Every lane must call it.
struct CameraSums {
    bool drawn;
    double* out;  // null: nobody asks

    __device__ void operator()(int place, double value) const {
        if (out == nullptr) return;
        const double sum = warp_sum(drawn ? value : 0.0);
        if ((threadIdx.x & 31) == 0) out[place] = sum;
    }
    __device__ void operator()(int first, const Vector& value) const {
        (*this)(first, value.x), (*this)(first + 1, value.y), (*this)(first + 2, value.z);
    }
};

// What one view gives to a Gaussian, added to `sum`, and a Gaussian to its camera.
__device__ inline void pull_back_view(const Gaussian& g, const Camera& camera, bool cone, bool drawn, const float* to,
                                      const CameraSums& to_camera, Gaussian& sum) {
    const Seen s = see(g, camera, cone);
    const ToSeen t = pull_back_coefficients(s, g.density, camera, cone, to);
    to_camera(12, static_cast<double>(to[0]) * s.point);
    to_camera(15, static_cast<double>(to[1]) * s.point);
    to_camera(18, transposed_times(s.whitening, t.b1));
    to_camera(21, transposed_times(s.whitening, t.b2));
    const double of_w[3] = {t.w.x, t.w.y, t.w.z}, of_b1[3] = {t.b1.x, t.b1.y, t.b1.z};
    const double of_b2[3] = {t.b2.x, t.b2.y, t.b2.z}, scales[3] = {g.scales.x, g.scales.y, g.scales.z};
    double to_scales[3];
    Matrix to_seen;  // the own axes in the camera, by rows
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        const Vector row = of_w[i] * s.ray + of_b1[i] * camera.inverse(0) + of_b2[i] * camera.inverse(1);
        to_scales[i] = -dot(row, s.whitening.rows[i]) / scales[i];
        to_seen.rows[i] = (1 / scales[i]) * row;
    }
    const Vector &x = to_seen.rows[0], &y = to_seen.rows[1], &z = to_seen.rows[2];
    to_camera(0, transposed_times(g.axes, {x.x, y.x, z.x}) + t.m.x * g.mean);
    to_camera(4, transposed_times(g.axes, {x.y, y.y, z.y}) + t.m.y * g.mean);
    to_camera(8, transposed_times(g.axes, {x.z, y.z, z.z}) + t.m.z * g.mean);
    to_camera(3, t.m.x), to_camera(7, t.m.y), to_camera(11, t.m.z);
    if (!drawn) return;
    const Matrix rotation = camera.rotation();
    sum.mean += transposed_times(rotation, t.m);
    sum.scales += Vector{to_scales[0], to_scales[1], to_scales[2]};
    for (int i = 0; i < 3; ++i) sum.axes.rows[i] += transposed_times(rotation, to_seen.rows[i]);
    sum.density += to[2] * kRootTwoPi / sqrt(dot(s.w, s.w));
}

// One thread a Gaussian, in all views of its scene; blocks do not mix scenes. Cameras get [B, V, warps, 24], a sum a warp.
extern "C" __global__ void __launch_bounds__(kProjectThreads, 2)
    project_adjoint(const float* __restrict__ means, const float* __restrict__ scales,
                    const float* __restrict__ quaternions, const float* __restrict__ densities,
                    const double* __restrict__ cameras, const float* __restrict__ ends,
                    const float* __restrict__ to_coefficients, int cone, int views, int gaussians,
                    float* __restrict__ to_means, float* __restrict__ to_scales, float* __restrict__ to_quaternions,
                    float* __restrict__ to_densities, int to_cameras_wanted, double* __restrict__ to_cameras) {
    const int blocks = (gaussians + kProjectThreads - 1) / kProjectThreads;
    const int scene = blockIdx.x / blocks, in_scene = blockIdx.x % blocks * kProjectThreads + threadIdx.x;
    const bool exists = in_scene < gaussians;
    // A thread too many works on the last Gaussian and keeps the result to itself: its warp needs it for sums.
    const long long place = exists ? in_scene : gaussians - 1, k = static_cast<long long>(scene) * gaussians + place;
    const Gaussian g = load_gaussian(means + 3 * k, scales + 3 * k, quaternions + 4 * k, densities[k]);
    Gaussian sum{};
    for (int view = 0; view < views; ++view) {
        const long long image = static_cast<long long>(scene) * views + view, i = image * gaussians + place;
        const bool drawn = exists && ends[i] > 0.0f;
        const int warp = in_scene / 32, warps = blocks * (kProjectThreads / 32);
        double* out = to_cameras_wanted != 0 ? to_cameras + (image * warps + warp) * kCamera : nullptr;
        pull_back_view(g, Camera{cameras + image * kCamera}, cone != 0, drawn, to_coefficients + i * kCoefficients,
                       CameraSums{drawn, out}, sum);
    }
    if (!exists) return;
    const float* q = quaternions + 4 * k;
    to_densities[k] = static_cast<float>(sum.density);
    store(to_means + 3 * k, sum.mean);
    store(to_scales + 3 * k, sum.scales);
    store_to_quaternion(q, sum.axes, to_quaternions + 4 * k);
}
