// What threads do together: places in a list, a sum over a warp. Both have one order on any machine.
#pragma once

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kWarp = 0xffffffffu;

// The sum of the counts of all threads before this one, and of all: where this thread's items go when a block of
// kThreads lists them in thread order. Every thread of the block must call it, and the block must meet at a barrier
// before the next call, which writes `sums` again.
__device__ inline int exclusive_sum(int count, int (&sums)[kWarps], int& total) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int upto = count;
    for (int step = 1; step < 32; step <<= 1) {
        const int other = __shfl_up_sync(kWarp, upto, step);
        if (lane >= step) upto += other;
    }
    if (lane == 31) sums[warp] = upto;
    __syncthreads();
    int before = upto - count;
    total = 0;
    for (int w = 0; w < kWarps; ++w) {
        if (w < warp) before += sums[w];
        total += sums[w];
    }
    return before;
}

// The sum over the 32 lanes of a warp, the same bits in each; every lane must call it.
template <typename T>
__device__ inline T warp_sum(T value) {
    for (int other = 16; other > 0; other >>= 1) value += __shfl_xor_sync(kWarp, value, other);
    return value;
}

// One step of warp_sums: of 2 Half numbers each lane keeps one half and hands the other to the lane that keeps that.
// A recursion, because loops of changing length are not unrolled, and the numbers would leave their registers.
template <int Half>
__device__ inline void exchange_halves(float (&held)[16]) {
    const bool upper = (threadIdx.x & Half) != 0;
#pragma unroll
    for (int i = 0; i < Half; ++i) {
        const float kept = upper ? held[i + Half] : held[i], given = upper ? held[i] : held[i + Half];
        held[i] = kept + __shfl_xor_sync(kWarp, given, Half);
    }
    if constexpr (Half > 1) exchange_halves<Half / 2>(held);
}

// The sums over the 32 lanes of a warp of up to 16 numbers at once, with a quarter of the exchanges of that many
// warp_sum: lane i gets that of number i % 16. Every lane must call it.
template <int Count>
__device__ inline float warp_sums(const float (&numbers)[Count]) {
    static_assert(Count <= 16, "four steps halve 16 numbers");
    float held[16] = {};
#pragma unroll
    for (int i = 0; i < Count; ++i) held[i] = numbers[i];
    exchange_halves<8>(held);
    return held[0] + __shfl_xor_sync(kWarp, held[0], 16);
}
