// Numbers on the CPU: 16-bit floats to and from fp32, exp and tanh. Written so that a compiler turns
// loops over them into vector code: no branches, no calls, no tables.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "isa.h"

namespace bigft {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

// What a dtype is computed in.
template <class T>
using Acc = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class To, class From>
BIGFT_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

BIGFT_INLINE double widen(double x) { return x; }
BIGFT_INLINE float widen(float x) { return x; }
BIGFT_INLINE float widen(bf16 x) { return bits_as<float>(static_cast<uint32_t>(x.bits) << 16); }
BIGFT_INLINE float widen(f16 x) {
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
  // 2^112 moves the exponent from f16's bias to f32's; it makes subnormals normal by the way.
  const float finite = bits_as<float>(magnitude) * 0x1p112f;
  const uint32_t special = magnitude | 0x7f800000;  // infinity or NaN
  const uint32_t bits = (x.bits & 0x7c00) == 0x7c00 ? special : bits_as<uint32_t>(finite);
  return bits_as<float>(bits | static_cast<uint32_t>(x.bits & 0x8000) << 16);
}

template <class T>
BIGFT_INLINE T narrow(Acc<T> x);
template <>
BIGFT_INLINE double narrow<double>(double x) {
  return x;
}
template <>
BIGFT_INLINE float narrow<float>(float x) {
  return x;
}
template <>
BIGFT_INLINE bf16 narrow<bf16>(float x) {  // to nearest, ties to even
  const uint32_t bits = bits_as<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
  return {static_cast<uint16_t>(is_nan ? (bits >> 16) | 0x40 : rounded)};
}
template <>
BIGFT_INLINE f16 narrow<f16>(float x) {  // to nearest, ties to even
  const uint32_t bits = bits_as<uint32_t>(x);
  const uint32_t magnitude = bits & 0x7fffffff;
  const uint32_t normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  // Adding 0.5 leaves a subnormal's bits, rounded by the addition, at the end of the mantissa.
  const uint32_t tiny = bits_as<uint32_t>(bits_as<float>(magnitude) + 0.5f) - 0x3f000000;
  uint32_t half = magnitude < 0x38800000 ? tiny : normal;
  half = magnitude >= 0x477ff000 ? 0x7c00 : half;  // rounds to infinity
  half = magnitude > 0x7f800000 ? 0x7e00 : half;
  return {static_cast<uint16_t>(half | (bits >> 16 & 0x8000))};
}

BIGFT_INLINE double exp_of(double x) { return std::exp(x); }

// Within 1 ulp for x in [-87.3, 88.7]; 0 below, which a softmax cannot tell from the truth; NaN stays.
// exp(x) = 2^n * exp(r) with |r| <= ln(2) / 2, where a polynomial of degree 6 (Taylor's, with the last
// terms fitted) is good to fp32.
BIGFT_INLINE float exp_of(float x) {
  const float lowest = -87.33654f;
  const float clamped = x < lowest ? lowest : x;
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const float shifted = clamped * 1.44269504f + magic;
  const float n = shifted - magic;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t exponent = bits_as<int32_t>(shifted) - bits_as<int32_t>(magic);
  const float power = bits_as<float>(static_cast<uint32_t>(exponent + 127) << 23);
  return x < lowest ? 0.0f : p * power;
}

BIGFT_INLINE double tanh_of(double x) { return std::tanh(x); }

// Within 2 ulp. Near 0 an odd polynomial: 1 - 2 / (exp(2x) + 1) would cancel there.
// Coefficients: Cephes (Moshier), tanhf.
BIGFT_INLINE float tanh_of(float x) {
  const float magnitude = x < 0 ? -x : x;
  const float z = x * x;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const float near = p * z * x + x;
  const float decayed = exp_of(-2.0f * magnitude);
  const float far = (1.0f - decayed) / (1.0f + decayed);
  const float signed_far = x < 0 ? -far : far;
  return magnitude < 0.625f ? near : signed_far;
}

}  // namespace bigft
