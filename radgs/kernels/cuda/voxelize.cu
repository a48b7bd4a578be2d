// Radiative Gaussians to volumes [B, D, H, W], from 10 coefficients for each Gaussian.
#include "cooperate.cuh"
#include "ellipsoid.cuh"

static_assert(sizeof(VoxelBox) == 24, "operations.py gives it this room");
constexpr int kWide = 8, kHigh = 8, kDeep = 4;
static_assert(kWide * kHigh * kDeep == kThreads, "a thread owns one voxel of the brick");

// One thread a Gaussian: the voxels it can reach.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    reaches(const float* __restrict__ coefficients, const float* __restrict__ cutoffs, long long total, int depth,
            int height, int width, VoxelBox* __restrict__ boxes) {
    const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (i < total) boxes[i] = reach(load_ellipsoid(coefficients + i * kCoefficients, cutoffs[i]), depth, height, width);
}

__device__ inline bool overlaps(const VoxelBox& box, int x, int y, int z) {
    const int corner[3] = {x, y, z}, size[3] = {kWide, kHigh, kDeep};
    bool hit = true;
    for (int axis = 0; axis < 3; ++axis) {
        hit = hit && box.first[axis] <= box.last[axis] && box.first[axis] < corner[axis] + size[axis] &&
              box.last[axis] >= corner[axis];
    }
    return hit;
}

// One block a brick of voxels, which lists the Gaussians that reach it as rasterize_forward does those of a tile.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    voxelize_forward(const float* __restrict__ coefficients, const float* __restrict__ cutoffs,
                     const VoxelBox* __restrict__ boxes, int gaussians, int depth, int height, int width,
                     float* __restrict__ volumes) {
    __shared__ Ellipsoid listed[kThreads];
    __shared__ int counts[kThreads / 32];
    const int across = (width + kWide - 1) / kWide, down = (height + kHigh - 1) / kHigh;
    const int bricks = across * down * ((depth + kDeep - 1) / kDeep);
    const int volume = blockIdx.x / bricks, brick = blockIdx.x % bricks;
    const int left = brick % across * kWide, top = brick / across % down * kHigh, front = brick / across / down * kDeep;
    const int thread = threadIdx.x;
    const int i = left + thread % kWide, j = top + thread / kWide % kHigh, l = front + thread / (kWide * kHigh);
    const long long offset = static_cast<long long>(volume) * gaussians;
    const float x = static_cast<float>(i), y = static_cast<float>(j), z = static_cast<float>(l);
    float sum = 0.0f;
    for (int base = 0; base < gaussians; base += kThreads) {
        const int candidate = base + thread;
        const bool hit = candidate < gaussians && overlaps(boxes[offset + candidate], left, top, front);
        int total;
        const int place = place_in_list(hit, counts, total);
        if (hit) {
            const long long c = offset + candidate;
            listed[place] = load_ellipsoid(coefficients + c * kCoefficients, cutoffs[c]);
        }
        __syncthreads();
#pragma unroll 2
        for (int k = 0; k < total; ++k) {
            const Ellipsoid e = listed[k];
            const float s = square(e, x - e.x, y - e.y, z - e.z);
            if (s <= e.tau2) sum += e.density * exp_half(s);
        }
    }
    if (i < width && j < height && l < depth) {
        volumes[((static_cast<long long>(volume) * depth + l) * height + j) * width + i] = sum;
    }
}

// One warp a Gaussian: lanes take patches of 8 x 4 voxels of each slice and their sums are added in one order.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    voxelize_backward(const float* __restrict__ coefficients, const float* __restrict__ cutoffs,
                      const float* __restrict__ to_volumes, long long total, int gaussians, int depth, int height,
                      int width, float* __restrict__ to_coefficients) {
    const long long i = (static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x) / 32;
    if (i >= total) return;  // the whole warp
    const int lane = threadIdx.x & 31;
    const float* c = coefficients + i * kCoefficients;
    const Ellipsoid e = load_ellipsoid(c, cutoffs[i]);
    const VoxelBox box = reach(e, depth, height, width);
    const float* volume = to_volumes + i / gaussians * depth * height * width;
    float m = 0, mx = 0, my = 0, mz = 0, xx = 0, xy = 0, xz = 0, yy = 0, yz = 0, zz = 0;
    for (int z = box.first[2]; z <= box.last[2]; ++z) {
        const float dz = static_cast<float>(z) - e.z;
        for (int y = box.first[1] + lane / 8; y <= box.last[1]; y += 4) {
            const float dy = static_cast<float>(y) - e.y;
            for (int x = box.first[0] + lane % 8; x <= box.last[0]; x += 8) {
                const float dx = static_cast<float>(x) - e.x;
                const float s = square(e, dx, dy, dz);
                if (s <= e.tau2) {
                    const float value = volume[(static_cast<long long>(z) * height + y) * width + x] * exp_half(s);
                    m += value, mx += value * dx, my += value * dy, mz += value * dz;
                    xx += value * dx * dx, xy += value * dx * dy, xz += value * dx * dz;
                    yy += value * dy * dy, yz += value * dy * dz, zz += value * dz * dz;
                }
            }
        }
    }
    m = warp_sum(m), mx = warp_sum(mx), my = warp_sum(my), mz = warp_sum(mz);
    xx = warp_sum(xx), xy = warp_sum(xy), xz = warp_sum(xz);
    yy = warp_sum(yy), yz = warp_sum(yz), zz = warp_sum(zz);
    if (lane != 0) return;
    float* out = to_coefficients + i * kCoefficients;
    out[0] = e.density * (c[4] * mx + c[5] * my + c[6] * mz);
    out[1] = e.density * (c[5] * mx + c[7] * my + c[8] * mz);
    out[2] = e.density * (c[6] * mx + c[8] * my + c[9] * mz);
    out[3] = m;
    out[4] = -0.5f * e.density * xx, out[5] = -e.density * xy, out[6] = -e.density * xz;
    out[7] = -0.5f * e.density * yy, out[8] = -e.density * yz, out[9] = -0.5f * e.density * zz;
}
