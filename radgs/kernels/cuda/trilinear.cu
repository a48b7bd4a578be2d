// Line integrals of a trilinearly interpolated volume: forward with ray gradients, and the adjoint.
// Values sit at voxel centres and fall to zero within one voxel beyond the outermost ones; rays and samples are those
// of radgs/kernels/numba/trilinear.py.
#include "gather.cuh"

constexpr int kThreads = 128;

// Samples first .. last-1 of a ray have all eight neighbours inside the volume, whatever is rounded.
struct Interior {
    int first, last;
};

// Of the volume's edge, how far from the border rounding in float32 may move a sample.
constexpr double kRounding = 1e-6;

__device__ inline Ray trilinear_ray(const double* source, const double* directions, int u, int v, double step,
                                    const int (&size)[3], Interior& interior) {
    Line line = line_of_pixel(source, directions, u, v);
    clip(line, {-1.0, -1.0, -1.0}, {double(size[0]), double(size[1]), double(size[2])});
    const double start = line.start;
    const int count = line.end > start ? static_cast<int>(ceil((line.end - start) / step)) : 0;
    const Ray ray = ray_from_entry(line, step, count);
    interior = {0, 0};
    if (count > 0 && min(size[0], min(size[1], size[2])) > 1) {
        line.end = start + count * step;
        const double x = kRounding * size[0], y = kRounding * size[1], z = kRounding * size[2];
        clip(line, {x, y, z}, {size[0] - 1.0 - x, size[1] - 1.0 - y, size[2] - 1.0 - z});
        if (line.end > line.start) {
            interior.first = max(0, static_cast<int>(ceil((line.start - start) / step - 0.5)));
            interior.last = min(count, static_cast<int>(floor((line.end - start) / step - 0.5)) + 1);
            interior.last = max(interior.first, interior.last);
        }
    }
    return ray;
}

// The whole number below p, up to 2^22, and how far above it p is. Above 2^23 floats are whole numbers one apart:
// rounding a sum down is the floor, at an eighth of the time of a conversion.
__device__ inline int floor_of(float p, float& fraction) {
    constexpr float shift = 12582912.0f;  // 1.5 * 2^23
    const float shifted = __fadd_rd(p, shift);
    fraction = p - (shifted - shift);
    return __float_as_int(shifted) - 0x4b400000;
}

// Sums over samples: value; gradient; gradient times depth past the entry.
struct Sums {
    float value, g[3], h[3];
};

// Values at the corners of a sample's cell, x fastest; 0 outside of the volume.
template <bool Inside>
__device__ inline void load_corners(const float* __restrict__ volume, const int (&size)[3], const int (&i)[3],
                                    float (&c)[8]) {
    const int row = size[0], plane = row * size[1];
    const float* at = volume + ((i[2] * size[1] + i[1]) * row + i[0]);
#pragma unroll
    for (int corner = 0; corner < 8; ++corner) {
        const int x = corner & 1, y = corner >> 1 & 1, z = corner >> 2;
        const bool exists = Inside || (i[0] + x >= 0 && i[0] + x < size[0] && i[1] + y >= 0 && i[1] + y < size[1] &&
                                       i[2] + z >= 0 && i[2] + z < size[2]);
        c[corner] = exists ? at[z * plane + y * row + x] : 0.0f;
    }
}

template <bool Inside, bool Gradient>
__device__ inline void add_samples(const float* __restrict__ volume, const int (&size)[3], const Ray& ray, int first,
                                   int last, Sums& sums) {
    const float end = static_cast<float>(last);
    for (float k = static_cast<float>(first) + 0.5f; k < end; k += 1.0f) {
        const float t = k * ray.step;
        float f[3], c[8];
        int i[3];
#pragma unroll
        for (int axis = 0; axis < 3; ++axis) i[axis] = floor_of(ray.entry[axis] + t * ray.slope[axis], f[axis]);
        load_corners<Inside>(volume, size, i, c);
        const float dx0 = c[1] - c[0], dx1 = c[3] - c[2], dx2 = c[5] - c[4], dx3 = c[7] - c[6];
        const float a0 = c[0] + f[0] * dx0, a1 = c[2] + f[0] * dx1, a2 = c[4] + f[0] * dx2, a3 = c[6] + f[0] * dx3;
        const float dy0 = a1 - a0, dy1 = a3 - a2;
        const float low = a0 + f[1] * dy0, high = a2 + f[1] * dy1;
        sums.value += low + f[2] * (high - low);
        if (Gradient) {
            const float near = dx0 + f[1] * (dx1 - dx0), far = dx2 + f[1] * (dx3 - dx2);
            const float slope[3] = {near + f[2] * (far - near), dy0 + f[2] * (dy1 - dy0), high - low};
            for (int axis = 0; axis < 3; ++axis) sums.g[axis] += slope[axis], sums.h[axis] += t * slope[axis];
        }
    }
}

// One thread a pixel: image [V, H, W] and, if wanted, gradient [V, 6, H, W] to source and direction.
template <bool Gradient>
__device__ inline void integrate(const float* __restrict__ volume, const double* __restrict__ sources,
                                 const double* __restrict__ directions, const double* __restrict__ mm_per_depth,
                                 double step_mm, const int (&size)[3], int height, int width, float* __restrict__ image,
                                 float* __restrict__ gradient) {
    const int u = blockIdx.x * blockDim.x + threadIdx.x, v = blockIdx.y * blockDim.y + threadIdx.y;
    const int view = blockIdx.z;
    if (u >= width || v >= height) return;
    const long long area = static_cast<long long>(height) * width, place = static_cast<long long>(v) * width + u;
    const double step = step_mm / mm_per_depth[view * area + place];
    Interior inner;
    const Ray ray = trilinear_ray(sources + 3 * view, directions + 9 * view, u, v, step, size, inner);
    Sums sums{};
    add_samples<false, Gradient>(volume, size, ray, 0, inner.first, sums);
    add_samples<true, Gradient>(volume, size, ray, inner.first, inner.last, sums);
    add_samples<false, Gradient>(volume, size, ray, inner.last, ray.count, sums);
    image[view * area + place] = sums.value * ray.step;
    if (Gradient) {
        float* out = gradient + 6 * view * area + place;
        for (int axis = 0; axis < 3; ++axis) {
            const float g = sums.g[axis] * ray.step;
            out[axis * area] = g;
            out[(3 + axis) * area] = ray.start * g + sums.h[axis] * ray.step;
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, 4)
    trilinear_forward(const float* volume, const double* sources, const double* directions, const double* mm_per_depth,
                      double step_mm, int depth, int rows, int columns, int height, int width, float* image) {
    integrate<false>(volume, sources, directions, mm_per_depth, step_mm, {columns, rows, depth}, height, width, image,
                     nullptr);
}

extern "C" __global__ void __launch_bounds__(kThreads, 4)
    trilinear_forward_with_gradient(const float* volume, const double* sources, const double* directions,
                                    const double* mm_per_depth, double step_mm, int depth, int rows, int columns,
                                    int height, int width, float* image, float* gradient) {
    integrate<true>(volume, sources, directions, mm_per_depth, step_mm, {columns, rows, depth}, height, width, image,
                    gradient);
}

// One thread a pixel: its ray, for the adjoint.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    trilinear_rays(const double* __restrict__ sources, const double* __restrict__ directions,
                   const double* __restrict__ mm_per_depth, double step_mm, int depth, int rows, int columns,
                   int height, int width, Ray* __restrict__ rays) {
    const int u = blockIdx.x * blockDim.x + threadIdx.x, v = blockIdx.y * blockDim.y + threadIdx.y;
    const int view = blockIdx.z;
    if (u >= width || v >= height) return;
    const long long i = (static_cast<long long>(view) * height + v) * width + u;
    Interior unused;
    rays[i] = trilinear_ray(sources + 3 * view, directions + 9 * view, u, v, step_mm / mm_per_depth[i],
                            {columns, rows, depth}, unused);
}

// The sum over a ray's samples of the weight that interpolation gives to one voxel, times the step.
struct TrilinearLength {
    static constexpr double half = 1.0;

    __device__ static float of(const Ray& ray, const int (&voxel)[3], const int (&)[3]) {
        float near = 0.0f, far = static_cast<float>(ray.count) * ray.step;
        for (int axis = 0; axis < 3; ++axis) {
            const float centre = static_cast<float>(voxel[axis]);
            if (fabsf(ray.slope[axis]) >= static_cast<float>(kParallel)) {
                clip_axis(ray.entry[axis], ray.slope[axis], centre - 1.0f, centre + 1.0f, near, far);
            }
        }
        if (!(near <= far)) return 0.0f;
        // One sample more on each side: the weights are zero outside, rounding must not lose one inside.
        const int first = max(0, static_cast<int>(ceilf(near / ray.step - 0.5f)) - 1);
        const int last = min(ray.count, static_cast<int>(floorf(far / ray.step - 0.5f)) + 2);
        float sum = 0.0f;
        for (int k = first; k < last; ++k) {
            const float t = (static_cast<float>(k) + 0.5f) * ray.step;
            float weight = 1.0f;
            for (int axis = 0; axis < 3; ++axis) {
                const float position = ray.entry[axis] + t * ray.slope[axis];
                weight *= fmaxf(1.0f - fabsf(position - static_cast<float>(voxel[axis])), 0.0f);
            }
            sum += weight;
        }
        return sum * ray.step;
    }
};

// One thread a voxel.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    trilinear_adjoint(const float* __restrict__ to_image, const Ray* __restrict__ rays,
                      const double* __restrict__ sources, const double* __restrict__ pixels_from_directions, int views,
                      int height, int width, int depth, int rows, int columns, float* __restrict__ to_volume) {
    const int size[3] = {columns, rows, depth};
    int voxel[3];
    long long flat;
    if (!voxel_of_thread(size, voxel, flat)) return;
    to_volume[flat] =
        gather<TrilinearLength>(to_image, rays, sources, pixels_from_directions, views, height, width, voxel, size);
}
