// Radiative Gaussians to images [I, H, W], from 11 coefficients for each Gaussian and image.
#include "cooperate.cuh"
#include "footprint.cuh"

static_assert(sizeof(PixelBox) == 16, "operations.py gives it this room");
constexpr int kTile = 16;
static_assert(kTile * kTile == kThreads, "a thread owns one pixel of the tile");

// One thread a Gaussian and image: the pixels it can reach.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    footprints(const float* __restrict__ coefficients, const float* __restrict__ cutoffs, long long total, int height,
               int width, PixelBox* __restrict__ boxes) {
    const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (i < total) boxes[i] = footprint(load_splat(coefficients + i * kCoefficients, cutoffs[i]), height, width);
}

// One block a tile. It lists the Gaussians that reach its tile, kThreads candidates at a time and in their order, and
// each thread adds them to its own pixel: no list leaves the chip, and no pixel depends on the order of blocks.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    rasterize_forward(const float* __restrict__ coefficients, const float* __restrict__ cutoffs,
                      const PixelBox* __restrict__ boxes, int gaussians, int height, int width,
                      float* __restrict__ images) {
    __shared__ Splat listed[kThreads];
    __shared__ int counts[kThreads / 32];
    const int across = (width + kTile - 1) / kTile, tiles = across * ((height + kTile - 1) / kTile);
    const int image = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    const int left = tile % across * kTile, top = tile / across * kTile;
    const int u = left + threadIdx.x % kTile, v = top + threadIdx.x / kTile;
    const long long offset = static_cast<long long>(image) * gaussians;
    const float x = static_cast<float>(u), y = static_cast<float>(v);
    float sum = 0.0f;
    for (int base = 0; base < gaussians; base += kThreads) {
        const int candidate = base + threadIdx.x;
        bool hit = false;
        if (candidate < gaussians) {
            const PixelBox box = boxes[offset + candidate];
            hit = box.left <= box.right && box.left < left + kTile && box.right >= left && box.top <= box.bottom &&
                  box.top < top + kTile && box.bottom >= top;
        }
        int total;
        const int place = place_in_list(hit, counts, total);
        if (hit) {
            const long long i = offset + candidate;
            listed[place] = load_splat(coefficients + i * kCoefficients, cutoffs[i]);
        }
        __syncthreads();
#pragma unroll 2
        for (int k = 0; k < total; ++k) {
            const Splat splat = listed[k];
            const float dx = x - splat.u, dy = y - splat.v;
            const float n = numerator(splat, dx, dy), q = denominator(splat, dx, dy);
            if (n <= splat.tau2 * q) {
                const float root = rsqrtf(q);
                sum += splat.a * root * exp_half(n * root * root);
            }
        }
    }
    if (u < width && v < height) images[(static_cast<long long>(image) * height + v) * width + u] = sum;
}

// One warp a Gaussian and image: lanes take patches of 8 x 4 pixels of its box and their sums are added in one order.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    rasterize_backward(const float* __restrict__ coefficients, const float* __restrict__ cutoffs,
                       const float* __restrict__ to_images, long long total, int gaussians, int height, int width,
                       float* __restrict__ to_coefficients) {
    const long long i = (static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x) / 32;
    if (i >= total) return;  // the whole warp
    const int lane = threadIdx.x & 31;
    const Splat s = load_splat(coefficients + i * kCoefficients, cutoffs[i]);
    const PixelBox box = footprint(s, height, width);
    const float* image = to_images + i / gaussians * height * width;
    // Sums of E; of A' = -E / 2q times d and dd'; of B = A' (1 - n/q) times 1, d and dd'; all without the factor a.
    float e = 0, ax = 0, ay = 0, axx = 0, axy = 0, ayy = 0, b = 0, bx = 0, by = 0, bxx = 0, bxy = 0, byy = 0;
    for (int v = box.top + lane / 8; v <= box.bottom; v += 4) {
        const float dy = static_cast<float>(v) - s.v;
        for (int u = box.left + lane % 8; u <= box.right; u += 8) {
            const float dx = static_cast<float>(u) - s.u;
            const float n = numerator(s, dx, dy), q = denominator(s, dx, dy);
            if (n <= s.tau2 * q) {
                const float root = rsqrtf(q), inverse = root * root;
                const float value = image[static_cast<long long>(v) * width + u] * root * exp_half(n * inverse);
                const float a = -0.5f * inverse * value, bb = a * (1.0f - n * inverse);
                e += value;
                ax += a * dx, ay += a * dy, axx += a * dx * dx, axy += a * dx * dy, ayy += a * dy * dy;
                b += bb, bx += bb * dx, by += bb * dy;
                bxx += bb * dx * dx, bxy += bb * dx * dy, byy += bb * dy * dy;
            }
        }
    }
    e = warp_sum(e);
    ax = warp_sum(ax), ay = warp_sum(ay), axx = warp_sum(axx), axy = warp_sum(axy), ayy = warp_sum(ayy);
    b = warp_sum(b), bx = warp_sum(bx), by = warp_sum(by);
    bxx = warp_sum(bxx), bxy = warp_sum(bxy), byy = warp_sum(byy);
    if (lane != 0) return;
    float* out = to_coefficients + i * kCoefficients;
    out[0] = -2.0f * s.a * (s.gxx * ax + s.gxy * ay + s.gx * b + s.qxx * bx + s.qxy * by);
    out[1] = -2.0f * s.a * (s.gxy * ax + s.gyy * ay + s.gy * b + s.qxy * bx + s.qyy * by);
    out[2] = e;
    out[3] = s.a * axx, out[4] = 2.0f * s.a * axy, out[5] = s.a * ayy;
    out[6] = 2.0f * s.a * bx, out[7] = 2.0f * s.a * by;
    out[8] = s.a * bxx, out[9] = 2.0f * s.a * bxy, out[10] = s.a * byy;
}
