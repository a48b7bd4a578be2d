// Line integrals of a volume of boxes (Siddon, Med. Phys. 1985): exact path lengths, ray gradients, the adjoint.
// Every plane crossing is computed from the plane's index; adding up steps would add up their rounding errors. Voxel i
// spans i - 1/2 to i + 1/2; the walk is that of radgs/kernels/numba/siddon.py.
#include "gather.cuh"

constexpr int kThreads = 128;

__device__ inline int voxel_at(double position, int size) {
    return min(max(static_cast<int>(floor(position + 0.5)), 0), size - 1);
}

// Entry of a ray into the volume, the voxel there, and the axis whose plane it crosses; -1: it starts inside.
__device__ inline Ray siddon_ray(const double* source, const double* directions, int u, int v, const int (&size)[3],
                                 int (&voxel)[3], int& axis) {
    Line line = line_of_pixel(source, directions, u, v);
    clip(line, {-0.5, -0.5, -0.5}, {size[0] - 0.5, size[1] - 0.5, size[2] - 0.5});
    axis = -1;
    double nearest = kInfinity;
    for (int a = 0; a < 3; ++a) {
        const double entry = line.origin[a] + line.start * line.slope[a];
        const double distance = fmin(fabs(entry + 0.5), fabs(entry - (size[a] - 0.5)));
        if (line.start > 0.0 && distance < nearest && fabs(line.slope[a]) > kParallel) axis = a, nearest = distance;
        voxel[a] = voxel_at(entry, size[a]);
    }
    return ray_from_entry(line, line.end - line.start, line.end > line.start ? 1 : 0);
}

// Depth past the entry where a ray leaves voxel `at` along one axis.
__device__ inline float crossing(int at, int way, float entry, float inverse) {
    return way == 0 ? 3e38f : (static_cast<float>(at) + 0.5f * static_cast<float>(way) - entry) * inverse;
}

// One thread a pixel: image [V, H, W] and, if wanted, gradient [V, 6, H, W] to source and direction.
template <bool Gradient>
__device__ inline void walk(const float* __restrict__ volume, const double* __restrict__ sources,
                            const double* __restrict__ directions, const int (&size)[3], int height, int width,
                            float* __restrict__ image, float* __restrict__ gradient) {
    const int u = blockIdx.x * blockDim.x + threadIdx.x, v = blockIdx.y * blockDim.y + threadIdx.y;
    const int view = blockIdx.z;
    if (u >= width || v >= height) return;
    int at[3], axis;
    const Ray ray = siddon_ray(sources + 3 * view, directions + 9 * view, u, v, size, at, axis);
    float inverse[3], leave[3], g[3] = {}, h[3] = {};
    int way[3];
    for (int a = 0; a < 3; ++a) {
        const float slope = ray.slope[a];
        way[a] = fabsf(slope) < static_cast<float>(kParallel) ? 0 : slope > 0.0f ? 1 : -1;
        inverse[a] = way[a] == 0 ? 0.0f : 1.0f / slope;
        leave[a] = crossing(at[a], way[a], ray.entry[a], inverse[a]);
    }
    float total = 0.0f, before = 0.0f, t = 0.0f;
    bool inside = ray.count > 0;
    while (inside) {
        const float value = volume[(static_cast<long long>(at[2]) * size[1] + at[1]) * size[0] + at[0]];
        const int next = leave[0] <= leave[1] && leave[0] <= leave[2] ? 0 : leave[1] <= leave[2] ? 1 : 2;
        float following = 0.0f;
        // The axes one by one: an array indexed at run time would live in memory, not in registers.
#pragma unroll
        for (int a = 0; a < 3; ++a) {
            if (Gradient && a == axis) {
                // Depth t of a crossing moves by -1 / slope per unit of source, by -t / slope per unit of slope.
                const float jump = (value - before) * inverse[a];
                g[a] += jump;
                h[a] += jump * (ray.start + t);
            }
            if (a == next) {
                following = leave[a];
                at[a] += way[a];
                leave[a] = crossing(at[a], way[a], ray.entry[a], inverse[a]);
                inside = at[a] >= 0 && at[a] < size[a];
            }
        }
        total += value * (following - t);
        before = value;
        axis = next;
        t = following;
    }
    const long long area = static_cast<long long>(height) * width, place = static_cast<long long>(v) * width + u;
    image[view * area + place] = total;
    if (Gradient) {
        float* out = gradient + 6 * view * area + place;
#pragma unroll
        for (int a = 0; a < 3; ++a) {
            const float jump = a == axis ? before * inverse[a] : 0.0f;
            out[a * area] = g[a] - jump;
            out[(3 + a) * area] = h[a] - jump * (ray.start + t);
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, 4)
    siddon_forward(const float* volume, const double* sources, const double* directions, int depth, int rows,
                   int columns, int height, int width, float* image) {
    walk<false>(volume, sources, directions, {columns, rows, depth}, height, width, image, nullptr);
}

extern "C" __global__ void __launch_bounds__(kThreads, 4)
    siddon_forward_with_gradient(const float* volume, const double* sources, const double* directions, int depth,
                                 int rows, int columns, int height, int width, float* image, float* gradient) {
    walk<true>(volume, sources, directions, {columns, rows, depth}, height, width, image, gradient);
}

// One thread a pixel: its ray, for the adjoint.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    siddon_rays(const double* __restrict__ sources, const double* __restrict__ directions, int depth, int rows,
                int columns, int height, int width, Ray* __restrict__ rays) {
    const int u = blockIdx.x * blockDim.x + threadIdx.x, v = blockIdx.y * blockDim.y + threadIdx.y;
    const int view = blockIdx.z;
    if (u >= width || v >= height) return;
    int voxel[3], axis;
    rays[(static_cast<long long>(view) * height + v) * width + u] =
        siddon_ray(sources + 3 * view, directions + 9 * view, u, v, {columns, rows, depth}, voxel, axis);
}

// The depth that a ray spends in one voxel.
struct SiddonLength {
    static constexpr double half = 0.5;

    __device__ static float of(const Ray& ray, const int (&voxel)[3], const int (&size)[3]) {
        float near = 0.0f, far = 3e38f;
        for (int axis = 0; axis < 3; ++axis) {
            if (fabsf(ray.slope[axis]) < static_cast<float>(kParallel)) {
                // A ray in the plane between two voxels belongs to one of them.
                if (voxel_at(ray.entry[axis], size[axis]) != voxel[axis]) return 0.0f;
            } else {
                const float centre = static_cast<float>(voxel[axis]);
                clip_axis(ray.entry[axis], ray.slope[axis], centre - 0.5f, centre + 0.5f, near, far);
            }
        }
        return fmaxf(far - near, 0.0f);
    }
};

// One thread a voxel.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    siddon_adjoint(const float* __restrict__ to_image, const Ray* __restrict__ rays,
                   const double* __restrict__ sources, const double* __restrict__ pixels_from_directions, int views,
                   int height, int width, int depth, int rows, int columns, float* __restrict__ to_volume) {
    const int size[3] = {columns, rows, depth};
    int voxel[3];
    long long flat;
    if (!voxel_of_thread(size, voxel, flat)) return;
    to_volume[flat] =
        gather<SiddonLength>(to_image, rays, sources, pixels_from_directions, views, height, width, voxel, size);
}
