// Sums over the pixels or voxels of a Gaussian, one warp a Gaussian, except that a block's warps share out each large
// one: a single warp would still be busy with the largest when all others are done. What is large depends on the
// Gaussian alone, and sums are added in one order, so that the same Gaussian gets the same bits anywhere.
#pragma once

#include "cooperate.cuh"

constexpr int kAlone = 4096;  // pixels or voxels of the box up to which a warp works alone

template <int Count>
struct Sums {
    float of[Count];
};

template <int Count>
struct SharedSums {
    bool large[kWarps];
    Sums<Count> parts[kWarps][kWarps];  // of a Gaussian, by a warp
};

// The sums of the block's Gaussians 0 .. here-1, returned to the threads of these numbers; `size` is that of the box of
// the thread's own. add(k, first, step, sums) is called by a whole warp and adds to each lane's sums what it finds in
// every step-th part of Gaussian k from part `first` on. Every thread of the block must call it.
template <int Count, typename Add>
__device__ inline Sums<Count> sums_of_block(int here, long long size, SharedSums<Count>& shared, const Add& add) {
    const int thread = static_cast<int>(threadIdx.x), lane = thread & 31, warp = thread / 32;
    if (thread < here) shared.large[thread] = size > kAlone;
    __syncthreads();
    for (int k = 0; k < here; ++k) {
        const bool together = shared.large[k];
        if (!together && k != warp) continue;
        Sums<Count> sums{};
        add(k, together ? warp : 0, together ? kWarps : 1, sums);
        __syncwarp();
        const float sum = warp_sums(sums.of);
        if (lane < Count) shared.parts[k][warp].of[lane] = sum;
    }
    __syncthreads();
    Sums<Count> total{};
    if (thread >= here) return total;
    const bool together = shared.large[thread];
    for (int w = together ? 0 : thread; w <= (together ? kWarps - 1 : thread); ++w) {
        for (int i = 0; i < Count; ++i) total.of[i] += shared.parts[thread][w].of[i];
    }
    return total;
}
