// Numbers on the GPU: what they are computed in, and 16-byte vectors of them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "rows.h"

namespace bigft {

// What a dtype is computed in.
template <class T>
using Acc = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Elements of a 16-byte vector.
template <class T>
constexpr int WIDTH = 16 / sizeof(T);

// Calls visit with a value of the C++ type of `dtype`.
template <class Visit>
void of_dtype(DType dtype, Visit visit) {
  switch (dtype) {
    case DType::f64: return visit(double{});
    case DType::f32: return visit(float{});
    case DType::bf16: return visit(__nv_bfloat16{});
    case DType::f16: return visit(__half{});
  }
}

__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }

// To nearest, ties to even.
template <class T>
__device__ __forceinline__ T narrow(Acc<T> x) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(x);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(x);
  } else {
    return x;
  }
}

template <class T>
__device__ __forceinline__ void widen(const uint4& vector, Acc<T> (&x)[WIDTH<T>]) {
  T elements[WIDTH<T>];
  memcpy(elements, &vector, sizeof(vector));
#pragma unroll
  for (int i = 0; i < WIDTH<T>; ++i) x[i] = widen(elements[i]);
}

template <class T>
__device__ __forceinline__ uint4 narrow(const Acc<T> (&x)[WIDTH<T>]) {
  uint4 vector;
  if constexpr (sizeof(T) == 2) {  // two at a time: one instruction rounds a pair
    using Pair = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;
    Pair pairs[WIDTH<T> / 2];
#pragma unroll
    for (int i = 0; i < WIDTH<T> / 2; ++i) {
      if constexpr (std::is_same_v<T, __half>) {
        pairs[i] = __floats2half2_rn(x[2 * i], x[2 * i + 1]);
      } else {
        pairs[i] = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
      }
    }
    memcpy(&vector, pairs, sizeof(vector));
  } else {
    memcpy(&vector, x, sizeof(vector));
  }
  return vector;
}

// exp for the dtype of the data. 16-bit data come with 2^-9 or more of error of their own: there the
// hardware's approximation, off by some 1e-6 of the terms that count in a softmax, is enough. setup.py
// builds with -ftz=true: care for subnormal numbers would double the instructions of each.
template <class T>
__device__ __forceinline__ Acc<T> exp_of(Acc<T> x) {
  if constexpr (sizeof(T) == 2) {
    return __expf(x);
  } else {
    return exp(x);
  }
}

}  // namespace bigft
