// Radiative Gaussians to volumes [B, D, H, W], from 10 coefficients for each Gaussian.
#include "ellipsoid.cuh"
#include "share.cuh"

static_assert(sizeof(Listed) == 48, "operations.py gives it this room");
// A brick is drawn as rasterize.cu draws a tile: warps of 8 x 4 threads with the kDeep voxels of a column each, kShares
// of them for a brick's Gaussians.
constexpr int kWide = 8, kHigh = 8, kDeep = 4, kRows = 4;
constexpr int kHalves = kHigh / kRows, kShares = kWarps / kHalves;
static_assert(kWide * kHigh * kDeep == kThreads && kWide * kRows == 32, "a thread writes one voxel of the brick");

__device__ inline Slots<3> brick_slots(int depth, int height, int width) {
    return {{kWide, kHigh, kDeep},
            {(width + kWide - 1) / kWide, (height + kHigh - 1) / kHigh, (depth + kDeep - 1) / kDeep}};
}

// One warp 32 Gaussians of a volume: the slots of bricks they reach, bits [B, slots, words], and their numbers as a
// brick wants to load them.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    mark_bricks(const float* __restrict__ coefficients, const float* __restrict__ cutoffs, int volumes, int gaussians,
                int depth, int height, int width, Listed* __restrict__ records, unsigned* __restrict__ bits) {
    const int words = (gaussians + 31) / 32;
    const long long warp = (static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x) / 32, volume = warp / words;
    if (volume >= volumes) return;  // the whole warp
    const int word = static_cast<int>(warp % words), place = 32 * word + (threadIdx.x & 31);
    VoxelBox box{{0, 0, 0}, {-1, -1, -1}};
    if (place < gaussians) {
        const long long i = volume * gaussians + place;
        const Ellipsoid e = load_ellipsoid(coefficients + i * kCoefficients, cutoffs[i]);
        box = reach(e, depth, height, width);
        records[i] = prepare(e);
    }
    const Slots<3> slots = brick_slots(depth, height, width);
    mark(box, slots, word, words, bits + volume * slots.all() * words);
}

// Add a Gaussian to the kDeep voxels of a column that begins at (x, y, z).
__device__ inline void add(const Listed& e, float x, float y, float z, float (&sums)[kDeep]) {
    const float dy = y - e.y, along = x - e.x + e.kxy * dy, front = z - e.z;
#pragma unroll
    for (int j = 0; j < kDeep; ++j) {
        const float dz = front + static_cast<float>(j), power = e.power(along, dy, dz);
        if (power >= e.least) sums[j] += e.density * exp2f(power);
    }
}

// One block a brick: it lists the Gaussians that reach it and draws them, as rasterize_forward does a tile's.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    voxelize_forward(const Listed* __restrict__ records, const unsigned* __restrict__ bits, int gaussians, int depth,
                     int height, int width, float* __restrict__ volumes) {
    __shared__ Listing listing;
    __shared__ Listed drawn[kThreads];
    __shared__ float shares[kShares][kWide * kHigh * kDeep];
    const Slots<3> slots = brick_slots(depth, height, width);
    const int across = slots.count[0], down = slots.count[1], bricks = across * down * slots.count[2];
    const int volume = blockIdx.x / bricks, brick = blockIdx.x % bricks, words = (gaussians + 31) / 32;
    const int column = brick % across, row = brick / across % down, slice = brick / across / down;
    const unsigned* marks = bits + static_cast<long long>(volume) * slots.all() * words;
    const unsigned* reaching[3] = {marks + static_cast<long long>(column) * words,
                                   marks + static_cast<long long>(across + row) * words,
                                   marks + static_cast<long long>(across + down + slice) * words};
    records += static_cast<long long>(volume) * gaussians;
    const int thread = threadIdx.x, lane = thread % 32, half = thread / 32 % kHalves, share = thread / 32 / kHalves;
    const int left = column * kWide, top = row * kHigh, front = slice * kDeep;
    const int in_x = lane % kWide, in_y = half * kRows + lane / kWide;
    const float x = static_cast<float>(left + in_x), y = static_cast<float>(top + in_y), z = static_cast<float>(front);
    float sums[kDeep] = {};
    for (int base = 0; base < words; base += kThreads) {
        const int listed = list_chunk(reaching, base, words, listing);
        for (int first = 0; first < listed; first += kThreads) {
            const int count = min(kThreads, listed - first);
            if (thread < count) drawn[thread] = records[32 * base + listing.listed[first + thread]];
            __syncthreads();
#pragma unroll 2
            for (int k = share; k < count; k += kShares) add(drawn[k], x, y, z, sums);
            __syncthreads();
        }
    }
    for (int j = 0; j < kDeep; ++j) shares[share][(j * kHigh + in_y) * kWide + in_x] = sums[j];
    __syncthreads();
    const int i = left + thread % kWide, j = top + thread / kWide % kHigh, l = front + thread / (kWide * kHigh);
    float sum = 0.0f;
    for (int s = 0; s < kShares; ++s) sum += shares[s][thread];
    if (i < width && j < height && l < depth) {
        volumes[((static_cast<long long>(volume) * depth + l) * height + j) * width + i] = sum;
    }
}

// Sums over the voxels that a Gaussian is drawn on, of the weight times exp(-s/2) times products of the offset.
enum { k1, kX, kY, kZ, kXX, kXY, kXZ, kYY, kYZ, kZZ, kMoments };

// Add the voxels of every `step`-th patch of 8 x 4 columns of the box, from patch `first` on. A lane goes down one
// column, so that powers of dx and dy are multiplied in once a column; patches begin where sectors of memory do.
__device__ inline void add_patches(const Listed& e, const VoxelBox& box, const float* __restrict__ volume, int height,
                                   int width, int first, int step, float (&m)[kMoments]) {
    const int lane = threadIdx.x & 31, left = box.first[0] / kWide, across = box.last[0] / kWide - left + 1;
    const int patches = across * ((box.last[1] - box.first[1]) / kRows + 1);
    for (int patch = first; patch < patches; patch += step) {
        const int x = (left + patch % across) * kWide + lane % kWide,
                  y = box.first[1] + patch / across * kRows + lane / kWide;
        const bool inside = x <= box.last[0] && y <= box.last[1];
        const float dx = static_cast<float>(x) - e.x, dy = static_cast<float>(y) - e.y, along = dx + e.kxy * dy;
        const float* voxel = volume + (static_cast<long long>(box.first[2]) * height + y) * width + x;
        float dz = static_cast<float>(box.first[2]) - e.z, v0 = 0, v1 = 0, v2 = 0;
        // Every lane turns as often as the first.
#pragma unroll 4
        for (int z = box.first[2]; z <= box.last[2]; ++z) {
            const float power = e.power(along, dy, dz);
            const bool drawn = power >= e.least && inside;
            const float value = (drawn ? *voxel : 0.0f) * exp2f(drawn ? power : 0.0f);
            v0 += value, v1 += value * dz, v2 += value * (dz * dz);
            dz += 1.0f, voxel += static_cast<long long>(height) * width;
        }
        const float v0_dx = v0 * dx, v0_dy = v0 * dy;
        m[k1] += v0, m[kX] += v0_dx, m[kY] += v0_dy, m[kZ] += v1;
        m[kXX] += v0_dx * dx, m[kXY] += v0_dx * dy, m[kXZ] += v1 * dx;
        m[kYY] += v0_dy * dy, m[kYZ] += v1 * dy, m[kZZ] += v2;
    }
}

// kWarps Gaussians a block.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    voxelize_backward(const float* __restrict__ coefficients, const float* __restrict__ cutoffs,
                      const float* __restrict__ to_volumes, long long total, int gaussians, int depth, int height,
                      int width, float* __restrict__ to_coefficients) {
    __shared__ VoxelBox boxes[kWarps];
    __shared__ Listed records[kWarps];
    __shared__ SharedSums<kMoments> shared;
    const long long base = static_cast<long long>(blockIdx.x) * kWarps, mine = base + threadIdx.x;
    const int here = static_cast<int>(min(static_cast<long long>(kWarps), total - base));
    const bool owns = static_cast<int>(threadIdx.x) < here;
    long long size = 0;
    if (owns) {
        const Ellipsoid e = load_ellipsoid(coefficients + mine * kCoefficients, cutoffs[mine]);
        const VoxelBox box = reach(e, depth, height, width);
        boxes[threadIdx.x] = box, records[threadIdx.x] = prepare(e);
        size = box.size();
    }
    const auto add = [&](int k, int first, int step, Sums<kMoments>& sums) {
        const float* volume = to_volumes + (base + k) / gaussians * depth * height * width;
        if (!boxes[k].empty()) add_patches(records[k], boxes[k], volume, height, width, first, step, sums.of);
    };
    const Sums<kMoments> sums = sums_of_block(here, size, shared, add);
    if (!owns) return;
    const float *m = sums.of, *c = coefficients + mine * kCoefficients;
    const float density = c[3];
    float* out = to_coefficients + mine * kCoefficients;
    out[0] = density * (c[4] * m[kX] + c[5] * m[kY] + c[6] * m[kZ]);
    out[1] = density * (c[5] * m[kX] + c[7] * m[kY] + c[8] * m[kZ]);
    out[2] = density * (c[6] * m[kX] + c[8] * m[kY] + c[9] * m[kZ]);
    out[3] = m[k1];
    out[4] = -0.5f * density * m[kXX], out[5] = -density * m[kXY], out[6] = -density * m[kXZ];
    out[7] = -0.5f * density * m[kYY], out[8] = -density * m[kYZ], out[9] = -0.5f * density * m[kZZ];
}
