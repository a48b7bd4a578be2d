// Radiative Gaussians to images [I, H, W], from 11 coefficients for each Gaussian and image.
#include "footprint.cuh"
#include "share.cuh"

static_assert(sizeof(PixelBox) == 16 && sizeof(Splat) == 48, "operations.py gives them this room");
// A tile is drawn by warps of 8 x 4 threads, each with pixels of one column kRows rows apart: kWarps / kHalves of them
// share out the tile's Gaussians, because few large tiles must keep a whole GPU busy.
constexpr int kTile = 16, kHalf = 8, kRows = 4, kPixels = kTile / kRows;
constexpr int kHalves = kTile / kHalf, kShares = kWarps / kHalves;
static_assert(kTile * kTile == kThreads && kHalf * kRows == 32, "a thread writes one pixel of the tile");

// One thread a Gaussian and image: the pixels it can reach.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    footprints(const float* __restrict__ coefficients, const float* __restrict__ cutoffs, long long total, int height,
               int width, PixelBox* __restrict__ boxes) {
    const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (i < total) boxes[i] = footprint(load_splat(coefficients + i * kCoefficients, cutoffs[i]), height, width);
}

__device__ inline Slots<2> tile_slots(int height, int width) {
    return {{kTile, kTile}, {(width + kTile - 1) / kTile, (height + kTile - 1) / kTile}};
}

// One warp 32 Gaussians of an image: the rows and columns of tiles they reach, bits [I, slots, words], and their
// numbers as a tile wants to load them.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    mark_tiles(const float* __restrict__ coefficients, const float* __restrict__ cutoffs,
               const PixelBox* __restrict__ boxes, int images, int gaussians, int height, int width,
               Splat* __restrict__ splats, unsigned* __restrict__ bits) {
    const int words = (gaussians + 31) / 32;
    const long long warp = (static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x) / 32, image = warp / words;
    if (image >= images) return;  // the whole warp
    const int word = static_cast<int>(warp % words), place = 32 * word + (threadIdx.x & 31);
    PixelBox box{{0, 0}, {-1, -1}};
    if (place < gaussians) {
        const long long i = image * gaussians + place;
        box = boxes[i];
        splats[i] = load_splat(coefficients + i * kCoefficients, cutoffs[i]);
    }
    const Slots<2> slots = tile_slots(height, width);
    mark(box, slots, word, words, bits + image * slots.all() * words);
}

// Factors that do not depend on the pixel, multiplied in: n times -log2(e) / 2, so that 2^(n/q) is wanted where it is
// not below `least`.
struct alignas(16) Listed {
    float u, v, a, least, xx, xy, yy, gx, gy, qxx, qxy, qyy;
};

__device__ inline Listed prepare(const Splat& s) {
    return {s.u,         s.v,         s.a,   kPower * s.tau2, kPower * s.gxx, 2.0f * kPower * s.gxy, kPower * s.gyy,
            2.0f * s.gx, 2.0f * s.gy, s.qxx, 2.0f * s.qxy,    s.qyy};
}

// Add a Gaussian to the kPixels pixels (x, y), (x, y + kRows), ... Where q is not positive nothing is drawn: the root
// is no number, and no comparison with it holds.
__device__ inline void add(const Listed& s, float x, float y, float (&sums)[kPixels]) {
    const float dx = x - s.u, top = y - s.v;
    const float n0 = s.xx * dx * dx, n1 = s.xy * dx, q0 = 1.0f + dx * (s.gx + s.qxx * dx), q1 = s.gy + s.qxy * dx;
#pragma unroll
    for (int j = 0; j < kPixels; ++j) {
        const float dy = top + static_cast<float>(kRows * j);
        const float n = n0 + dy * (n1 + s.yy * dy), q = q0 + dy * (q1 + s.qyy * dy);
        const float root = rsqrtf(q), power = n * (root * root);
        if (power >= s.least) sums[j] += s.a * (root * exp2f(power));
    }
}

// One block a tile: it lists the Gaussians that reach it, in their order, and draws them. No pixel depends on the order
// of blocks or threads, so that the same input gives the same bits.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    rasterize_forward(const Splat* __restrict__ splats, const unsigned* __restrict__ bits, int gaussians, int height,
                      int width, float* __restrict__ images) {
    __shared__ Listing listing;
    __shared__ Listed drawn[kThreads];
    __shared__ float shares[kShares][kTile * kTile];
    const Slots<2> slots = tile_slots(height, width);
    const int across = slots.count[0], tiles = across * slots.count[1], words = (gaussians + 31) / 32;
    const int image = blockIdx.x / tiles, column = blockIdx.x % tiles % across, row = blockIdx.x % tiles / across;
    const unsigned* marks = bits + static_cast<long long>(image) * slots.all() * words;
    const unsigned* reaching[2] = {marks + static_cast<long long>(column) * words,
                                   marks + static_cast<long long>(across + row) * words};
    splats += static_cast<long long>(image) * gaussians;
    const int thread = threadIdx.x, lane = thread % 32, half = thread / 32 % kHalves, share = thread / 32 / kHalves;
    const int left = column * kTile, top = row * kTile, in_x = half * kHalf + lane % kHalf, in_y = lane / kHalf;
    const float x = static_cast<float>(left + in_x), y = static_cast<float>(top + in_y);
    float sums[kPixels] = {};
    for (int base = 0; base < words; base += kThreads) {
        const int listed = list_chunk(reaching, base, words, listing);
        for (int first = 0; first < listed; first += kThreads) {
            Splat splat;
            bool hit = false;
            if (first + thread < listed) {
                splat = splats[32 * base + listing.listed[first + thread]];
                hit = meets(splat, static_cast<float>(left), static_cast<float>(top), static_cast<float>(kTile));
            }
            int count;
            const int place = exclusive_sum(hit ? 1 : 0, listing.sums, count);
            if (hit) drawn[place] = prepare(splat);
            __syncthreads();
#pragma unroll 2
            for (int k = share; k < count; k += kShares) add(drawn[k], x, y, sums);
        }
    }
    for (int j = 0; j < kPixels; ++j) shares[share][(in_y + kRows * j) * kTile + in_x] = sums[j];
    __syncthreads();
    const int u = left + thread % kTile, v = top + thread / kTile;
    float sum = 0.0f;
    for (int s = 0; s < kShares; ++s) sum += shares[s][thread];
    if (u < width && v < height) images[(static_cast<long long>(image) * height + v) * width + u] = sum;
}

// Sums over the pixels that a Gaussian is drawn on, times 1, dx, dy, dx^2, dx dy, dy^2: of A, the pixel's weight times
// q^(-3/2) exp(-n/2q), and of C, A times the power of two that stands for the exponential. No gradient needs more.
enum { kA, kAx, kAy, kAxx, kAxy, kAyy, kC, kCx, kCy, kCxx, kCxy, kCyy, kMoments };

// Patches of 8 x 4 pixels that a warp loads before it needs the first.
constexpr int kAhead = 2;

// The columns of a row that a Gaussian can be drawn on: between the roots of n - least q = a dx^2 + b dx + c, and one
// more on each side; none: last < first.
__device__ inline void columns_of_row(const Listed& s, float n0, float n1, float q0, float q1, int width, int& first,
                                      int& last) {
    const float a = s.xx - s.least * s.qxx, b = n1 - s.least * q1, c = n0 - s.least * q0;
    const float square = b * b, product = 4.0f * a * c;
    // Both are large where the ellipse is thin; what rounding may have taken from their difference is added.
    const float discriminant = square - product + 1e-6f * (square + fabsf(product));
    first = 0, last = -1;
    if (!(discriminant > 0.0f)) return;
    const float inverse = -0.5f / a, middle = s.u + b * inverse, half = discriminant * rsqrtf(discriminant) * inverse;
    pad_to_pixels(middle - half, middle + half, width, first, last);
}

// Add the pixels of every `step`-th band of 4 rows of the box, from band `first` on. A lane goes along one row, so that
// powers of dy are multiplied in once a row; patches begin where sectors of memory do.
__device__ inline void add_bands(const Listed& s, const PixelBox& box, const float* __restrict__ image, int width,
                                 int first, int step, float (&m)[kMoments]) {
    const int lane = threadIdx.x & 31;
    for (int band = box.first[1] + kRows * first; band <= box.last[1]; band += kRows * step) {
        const int v = band + lane / kHalf;
        const float dy = static_cast<float>(v) - s.v;
        const float n0 = s.yy * dy * dy, n1 = s.xy * dy, q0 = 1.0f + dy * (s.gy + s.qyy * dy), q1 = s.gx + s.qxy * dy;
        int from, right;
        columns_of_row(s, n0, n1, q0, q1, width, from, right);
        if (v > box.last[1]) right = -1;
        const int left = from / kHalf * kHalf + lane % kHalf;
        const float* pixel = image + static_cast<long long>(v) * width + left;
        float along = static_cast<float>(left) - s.u;
        float a0 = 0, a1 = 0, a2 = 0, c0 = 0, c1 = 0, c2 = 0;
        for (int u = left; u <= right; u += kAhead * kHalf) {
            float n[kAhead], q[kAhead], weight[kAhead];
            bool drawn[kAhead];
#pragma unroll
            for (int j = 0; j < kAhead; ++j) {
                const float dx = along + static_cast<float>(kHalf * j);
                n[j] = n0 + dx * (n1 + s.xx * dx), q[j] = q0 + dx * (q1 + s.qxx * dx);
                drawn[j] = n[j] >= s.least * q[j] && u + kHalf * j <= right;
                weight[j] = drawn[j] ? pixel[kHalf * j] : 0.0f;
            }
#pragma unroll
            for (int j = 0; j < kAhead; ++j) {
                if (drawn[j]) {
                    const float dx = along + static_cast<float>(kHalf * j), root = rsqrtf(q[j]), inverse = root * root;
                    const float power = n[j] * inverse, a = weight[j] * (inverse * root * exp2f(power)), c = a * power;
                    a0 += a, a1 += a * dx, a2 += a * (dx * dx);
                    c0 += c, c1 += c * dx, c2 += c * (dx * dx);
                }
            }
            pixel += kAhead * kHalf, along += static_cast<float>(kAhead * kHalf);
        }
        const float a_dy = a0 * dy, c_dy = c0 * dy;
        m[kA] += a0, m[kAx] += a1, m[kAy] += a_dy, m[kAxx] += a2, m[kAxy] += a1 * dy, m[kAyy] += a_dy * dy;
        m[kC] += c0, m[kCx] += c1, m[kCy] += c_dy, m[kCxx] += c2, m[kCxy] += c1 * dy, m[kCyy] += c_dy * dy;
    }
}

// With E = A q and B = A (1 - n/q) = A - C / kPower, summed over pixels: da = E, dG = -a/2 A dd', dg = -a B d,
// dQ = -a/2 B dd', and the centre gets a (G A d + g B + Q B d).
__device__ inline void store_gradient(const Splat& s, const float (&m)[kMoments], float* out) {
    float b[kC];
    for (int i = 0; i < kC; ++i) b[i] = m[i] - m[kC + i] / kPower;
    out[0] = s.a * (s.gxx * m[kAx] + s.gxy * m[kAy] + s.gx * b[kA] + s.qxx * b[kAx] + s.qxy * b[kAy]);
    out[1] = s.a * (s.gxy * m[kAx] + s.gyy * m[kAy] + s.gy * b[kA] + s.qxy * b[kAx] + s.qyy * b[kAy]);
    out[2] =
        m[kA] + 2.0f * (s.gx * m[kAx] + s.gy * m[kAy]) + s.qxx * m[kAxx] + 2.0f * s.qxy * m[kAxy] + s.qyy * m[kAyy];
    out[3] = -0.5f * s.a * m[kAxx], out[4] = -s.a * m[kAxy], out[5] = -0.5f * s.a * m[kAyy];
    out[6] = -s.a * b[kAx], out[7] = -s.a * b[kAy];
    out[8] = -0.5f * s.a * b[kAxx], out[9] = -s.a * b[kAxy], out[10] = -0.5f * s.a * b[kAyy];
}

// kWarps Gaussians and images a block.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    rasterize_backward(const float* __restrict__ coefficients, const float* __restrict__ cutoffs,
                       const float* __restrict__ to_images, long long total, int gaussians, int height, int width,
                       float* __restrict__ to_coefficients) {
    __shared__ PixelBox boxes[kWarps];
    __shared__ Listed records[kWarps];
    __shared__ SharedSums<kMoments> shared;
    const long long base = static_cast<long long>(blockIdx.x) * kWarps, mine = base + threadIdx.x;
    const int here = static_cast<int>(min(static_cast<long long>(kWarps), total - base));
    const bool owns = static_cast<int>(threadIdx.x) < here;
    long long size = 0;
    if (owns) {
        const Splat s = load_splat(coefficients + mine * kCoefficients, cutoffs[mine]);
        const PixelBox box = footprint(s, height, width);
        boxes[threadIdx.x] = box, records[threadIdx.x] = prepare(s);
        size = box.size();
    }
    const auto add = [&](int k, int first, int step, Sums<kMoments>& sums) {
        const float* image = to_images + (base + k) / gaussians * height * width;
        add_bands(records[k], boxes[k], image, width, first, step, sums.of);
    };
    const Sums<kMoments> sums = sums_of_block(here, size, shared, add);
    if (!owns) return;
    const Splat s = load_splat(coefficients + mine * kCoefficients, cutoffs[mine]);
    store_gradient(s, sums.of, to_coefficients + mine * kCoefficients);
}
