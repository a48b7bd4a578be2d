// Rays in index coordinates, source + t * direction with t the depth in mm along the camera's z axis.
// Set up in float64, as in radgs/kernels/numba/rays.py: a source a metre away would cost float32 its digits. Beyond the
// point where a ray enters the volume, float32 is enough.
#pragma once

constexpr double kParallel = 1e-12;
constexpr double kInfinity = 1e300;  // farther than any plane

// Depths 'start .. end' of a ray that lie inside a box; empty: end <= start.
struct Line {
    double origin[3], slope[3], start, end;
};

// A ray from its entry on: position entry + t slope, t up to `count` steps of `step`; count 0: it misses.
struct Ray {
    float entry[3], slope[3];
    float start, step;
    int count;
};

// The ray of pixel (u, v) from the source on.
__device__ inline Line line_of_pixel(const double* source, const double* direction_from_pixel, int u, int v) {
    Line line{{}, {}, 0.0, kInfinity};
    for (int axis = 0; axis < 3; ++axis) {
        const double* m = direction_from_pixel + 3 * axis;
        line.origin[axis] = source[axis];
        line.slope[axis] = m[0] * u + m[1] * v + m[2];
    }
    return line;
}

// Keep what lies inside a box with corners `low` and `high`.
__device__ inline void clip(Line& line, const double (&low)[3], const double (&high)[3]) {
    for (int axis = 0; axis < 3; ++axis) {
        const double origin = line.origin[axis], slope = line.slope[axis];
        if (fabs(slope) < kParallel) {
            if (!(low[axis] <= origin && origin <= high[axis])) line.end = line.start;
        } else {
            const double a = (low[axis] - origin) / slope, b = (high[axis] - origin) / slope;
            line.start = fmax(line.start, fmin(a, b));
            line.end = fmin(line.end, fmax(a, b));
        }
        if (line.end <= line.start) {
            line.end = line.start;
            return;
        }
    }
}

__device__ inline Ray ray_from_entry(const Line& line, double step, int count) {
    Ray ray;
    for (int axis = 0; axis < 3; ++axis) {
        ray.entry[axis] = static_cast<float>(line.origin[axis] + line.start * line.slope[axis]);
        ray.slope[axis] = static_cast<float>(line.slope[axis]);
    }
    ray.start = static_cast<float>(line.start);
    ray.step = static_cast<float>(step);
    ray.count = count;
    return ray;
}
