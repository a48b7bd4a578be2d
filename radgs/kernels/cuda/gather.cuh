// The adjoint of a projection as a gather: each voxel collects from the rays that pass it, views, rows and columns in
// order. No two threads write to one place, so there are no atomics and the sums have one order.
#pragma once

#include "rays.cuh"

static_assert(sizeof(Ray) == 36, "operations.py gives it this room");

// Whole pixels, both ends included; empty: right < left.
struct Window {
    int left, right, top, bottom;
};

// The pixels whose rays can meet the box of `half` voxels around a voxel; `pixel_from_direction` maps index
// coordinates relative to the source to t (u, v, 1). A box that reaches behind the source has no bounded image.
__device__ inline Window window_of_box(const double* source, const double* pixel_from_direction,
                                       const int (&voxel)[3], double half, int height, int width) {
    const double* m = pixel_from_direction;
    double left = kInfinity, right = -kInfinity, top = kInfinity, bottom = -kInfinity;
    int before = 0;
    for (int corner = 0; corner < 8; ++corner) {
        const double x = voxel[0] - source[0] + (corner & 1 ? half : -half);
        const double y = voxel[1] - source[1] + (corner & 2 ? half : -half);
        const double z = voxel[2] - source[2] + (corner & 4 ? half : -half);
        const double t = m[6] * x + m[7] * y + m[8] * z;
        if (t > 1e-9) {
            const double u = (m[0] * x + m[1] * y + m[2] * z) / t, v = (m[3] * x + m[4] * y + m[5] * z) / t;
            left = fmin(left, u), right = fmax(right, u);
            top = fmin(top, v), bottom = fmax(bottom, v);
            ++before;
        }
    }
    if (before == 0) return {0, -1, 0, -1};
    if (before < 8) return {0, width - 1, 0, height - 1};
    return {static_cast<int>(ceil(fmin(fmax(left, 0.0), width))), static_cast<int>(floor(fmax(fmin(right, width - 1), -1.0))),
            static_cast<int>(ceil(fmin(fmax(top, 0.0), height))), static_cast<int>(floor(fmax(fmin(bottom, height - 1), -1.0)))};
}

// Keep of the depths `near .. far` past the entry those where one coordinate lies in `low .. high`.
__device__ inline void clip_axis(float entry, float slope, float low, float high, float& near, float& far) {
    const float inverse = 1.0f / slope, a = (low - entry) * inverse, b = (high - entry) * inverse;
    near = fmaxf(near, fminf(a, b));
    far = fminf(far, fmaxf(a, b));
}

// What a voxel collects: the gradient to each ray's integral times Length::of(ray, voxel), summed.
template <typename Length>
__device__ float gather(const float* to_image, const Ray* rays, const double* sources,
                        const double* pixels_from_directions, int views, int height, int width,
                        const int (&voxel)[3], const int (&size)[3]) {
    float sum = 0.0f;
    for (int view = 0; view < views; ++view) {
        const Window w = window_of_box(sources + 3 * view, pixels_from_directions + 9 * view, voxel,
                                       Length::half + 1e-3, height, width);
        for (int v = w.top; v <= w.bottom; ++v) {
            const long long row = (static_cast<long long>(view) * height + v) * width;
            for (int u = w.left; u <= w.right; ++u) {
                const float weight = to_image[row + u];
                if (weight != 0.0f && rays[row + u].count > 0) sum += weight * Length::of(rays[row + u], voxel, size);
            }
        }
    }
    return sum;
}

// The voxel (x, y, z) of a thread; false beyond the last.
__device__ inline bool voxel_of_thread(const int (&size)[3], int (&voxel)[3], long long& flat) {
    flat = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    voxel[0] = static_cast<int>(flat % size[0]);
    voxel[1] = static_cast<int>(flat / size[0] % size[1]);
    const long long slice = flat / size[0] / size[1];
    voxel[2] = static_cast<int>(slice);
    return slice < size[2];
}
