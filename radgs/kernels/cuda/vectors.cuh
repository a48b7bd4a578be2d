// Vectors in float64.
#pragma once

struct Vector {
    double x, y, z;
};

__device__ inline Vector operator+(const Vector& a, const Vector& b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
__device__ inline Vector operator*(double k, const Vector& a) { return {k * a.x, k * a.y, k * a.z}; }
__device__ inline void operator+=(Vector& a, const Vector& b) { a = a + b; }

__device__ inline double dot(const Vector& a, const Vector& b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

__device__ inline Vector cross(const Vector& a, const Vector& b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

// Three numbers one after the other.
template <typename T>
__device__ inline Vector load_vector(const T* from) {
    return {static_cast<double>(from[0]), static_cast<double>(from[1]), static_cast<double>(from[2])};
}

__device__ inline void store(float* to, const Vector& a) {
    to[0] = static_cast<float>(a.x), to[1] = static_cast<float>(a.y), to[2] = static_cast<float>(a.z);
}

// A matrix by its rows.
struct Matrix {
    Vector rows[3];
};

__device__ inline Vector operator*(const Matrix& m, const Vector& a) {
    return {dot(m.rows[0], a), dot(m.rows[1], a), dot(m.rows[2], a)};
}

__device__ inline Vector transposed_times(const Matrix& m, const Vector& a) {
    return a.x * m.rows[0] + a.y * m.rows[1] + a.z * m.rows[2];
}
