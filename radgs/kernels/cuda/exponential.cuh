// exp(-n/2): powers of two are what the hardware computes.
#pragma once

__device__ inline float exp_half(float n) { return exp2f(-0.72134752f * n); }
