// exp(-n/2) is 2^(kPower n): powers of two are what the hardware computes.
#pragma once

constexpr float kPower = -0.72134752f;  // -log2(e) / 2
