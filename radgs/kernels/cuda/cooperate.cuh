// What threads do together: a list in shared memory, a sum over a warp. Both have one order on any machine.
#pragma once

constexpr int kThreads = 256;
constexpr unsigned kWarp = 0xffffffffu;

// Where this thread's item goes when a block of kThreads lists its hits in thread order, and how many there are:
// counted by warp, then an exclusive prefix sum over the warps. Every thread of the block must call it, and the block
// must meet at a barrier before the next call, which writes `counts` again.
__device__ inline int place_in_list(bool hit, int (&counts)[kThreads / 32], int& total) {
    const unsigned votes = __ballot_sync(kWarp, hit);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    if (lane == 0) counts[warp] = __popc(votes);
    __syncthreads();
    int place = __popc(votes & ((1u << lane) - 1u));
    total = 0;
    for (int w = 0; w < kThreads / 32; ++w) {
        if (w < warp) place += counts[w];
        total += counts[w];
    }
    return place;
}

// The sum over the 32 lanes of a warp, the same bits in each; every lane must call it.
template <typename T>
__device__ inline T warp_sum(T value) {
    for (int other = 16; other > 0; other >>= 1) value += __shfl_xor_sync(kWarp, value, other);
    return value;
}
