// Which Gaussians reach a block of pixels or voxels, in their order: tile lists by count and scan.
//
// Each axis is cut into slots as long as a block. One bit a Gaussian and slot says whether the Gaussian's box meets the
// slot. A block of the image takes the words of its slots, one an axis: the bits that all of them have are its
// Gaussians. It counts them, adds the counts up (exclusive sum) and writes its list into shared memory. The room is N
// times the slots of all axes / 8 bytes whatever the Gaussians are: the host needs no total, and nothing overflows.
#pragma once

#include "cooperate.cuh"

// Gaussians that a block lists at a time: a word of 32 bits each thread.
constexpr int kChunk = 32 * kThreads;

// First and last pixel or voxel along x, y (and z), both included; empty: last < first on any axis.
template <int Axes>
struct Box {
    int first[Axes], last[Axes];

    __device__ bool empty() const {
        bool none = false;
        for (int axis = 0; axis < Axes; ++axis) none = none || last[axis] < first[axis];
        return none;
    }
    __device__ long long size() const {
        long long product = empty() ? 0 : 1;
        for (int axis = 0; axis < Axes; ++axis) product *= last[axis] - first[axis] + 1;
        return product;
    }
};

// Edges of a block and how many blocks an image or volume has along each axis.
template <int Axes>
struct Slots {
    int edge[Axes], count[Axes];

    __device__ int all() const {
        int sum = 0;
        for (int axis = 0; axis < Axes; ++axis) sum += count[axis];
        return sum;
    }
};

// One warp marks 32 Gaussians of an image in its bits [slots, words], the slots of x first. Every lane must call it; a
// lane too many has an empty box.
template <int Axes>
__device__ inline void mark(const Box<Axes>& box, const Slots<Axes>& slots, int word, int words, unsigned* bits) {
    const int lane = threadIdx.x & 31;
    const bool empty = box.empty();
    for (int axis = 0; axis < Axes; ++axis) {
        const int first = empty ? 1 : box.first[axis] / slots.edge[axis],
                  last = empty ? 0 : box.last[axis] / slots.edge[axis];
        for (int base = 0; base < slots.count[axis]; base += 32) {
            const int here = min(32, slots.count[axis] - base);
            unsigned kept = 0;  // the lane's own slot
            for (int s = 0; s < here; ++s) {
                const unsigned votes = __ballot_sync(kWarp, first <= base + s && base + s <= last);
                if (lane == s) kept = votes;
            }
            if (lane < here) bits[static_cast<long long>(base + lane) * words + word] = kept;
        }
        bits += static_cast<long long>(slots.count[axis]) * words;
    }
}

// What a block of kThreads shares while it lists.
struct Listing {
    unsigned short listed[kChunk];  // offset from 32 times the first word
    int sums[kWarps];
};

// Lists the Gaussians that are in all of a block's slots, of kThreads words from `base` on; returns how many.
template <int Axes>
__device__ inline int list_chunk(const unsigned* const (&slots)[Axes], int base, int words, Listing& shared) {
    const int word = base + static_cast<int>(threadIdx.x);
    unsigned bits = word < words ? ~0u : 0u;
    for (int axis = 0; axis < Axes; ++axis) bits &= word < words ? slots[axis][word] : 0u;
    int total, place = exclusive_sum(__popc(bits), shared.sums, total);
    for (; bits != 0; bits &= bits - 1) {
        shared.listed[place++] = static_cast<unsigned short>(32 * threadIdx.x + __ffs(bits) - 1);
    }
    __syncthreads();
    return total;
}
