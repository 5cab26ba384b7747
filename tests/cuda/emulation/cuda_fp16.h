// Stands in for CUDA's header of this name.
#pragma once

#include "cuda_runtime.h"

struct __half {
  uint16_t bits;
};
struct __half2 {
  __half x, y;
};

inline float __half2float(__half x) {
  const int exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
  const float special = mantissa == 0 ? INFINITY : NAN;
  const float finite = std::ldexp(static_cast<float>(exponent == 0 ? mantissa : 1024 + mantissa),
                                  (exponent == 0 ? 1 : exponent) - 25);
  return std::copysign(exponent == 31 ? special : finite, x.bits & 0x8000 ? -1.0f : 1.0f);
}
inline __half __float2half_rn(float x) {
  const int sign = std::signbit(x) ? 0x8000 : 0;
  if (x != x) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (x == 0) return {static_cast<uint16_t>(sign)};
  if (std::fabs(x) >= 65520) return {static_cast<uint16_t>(sign | 0x7c00)};
  int exponent = 0;
  std::frexp(x, &exponent);
  exponent = std::max(exponent, -13);  // below it lie the subnormal numbers
  const auto units = static_cast<int>(std::nearbyint(std::ldexp(std::fabs(x), 11 - exponent)));
  return {static_cast<uint16_t>(sign | (((exponent + 13) << 10) + units))};
}
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
