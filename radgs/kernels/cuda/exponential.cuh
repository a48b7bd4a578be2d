// exp(-n/2): powers of two are what the hardware computes.
#pragma once

constexpr float kPower = -0.72134752f;  // -log2(e) / 2

__device__ inline float exp_half(float n) { return exp2f(kPower * n); }
