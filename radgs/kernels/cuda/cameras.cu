// From the gradients of rays to those of their camera.
#include "cooperate.cuh"

// A ray's gradient to its source and direction.
constexpr int kNumbers = 6;

// With the gradients of rays [V, 6, pixels] and those of the result to the rays' integrals [V, pixels]: the sums of
// their products times u, v and 1 over a warp's pixels, [V, warps, 6, 3], in float64. A block takes `each` pixels of
// one view and one of the six numbers, its threads every kThreads-th of them.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    rays_to_cameras(const float* __restrict__ of_rays, const float* __restrict__ to_image, int pixels, int width,
                    int each, double* __restrict__ sums) {
    const int number = blockIdx.y, view = blockIdx.z, first = blockIdx.x * each, last = min(pixels, first + each);
    const float* weights = to_image + static_cast<long long>(view) * pixels;
    const float* rays = of_rays + (static_cast<long long>(view) * kNumbers + number) * pixels;
    double of_u = 0, of_v = 0, of_1 = 0;
    for (int i = first + threadIdx.x; i < last; i += kThreads) {
        const double value = rays[i] * weights[i];
        of_u += value * (i % width), of_v += value * (i / width), of_1 += value;
    }
    of_u = warp_sum(of_u), of_v = warp_sum(of_v), of_1 = warp_sum(of_1);
    if ((threadIdx.x & 31) != 0) return;
    const long long warps = gridDim.x * kWarps, warp = blockIdx.x * kWarps + threadIdx.x / 32;
    double* out = sums + ((view * warps + warp) * kNumbers + number) * 3;
    out[0] = of_u, out[1] = of_v, out[2] = of_1;
}
