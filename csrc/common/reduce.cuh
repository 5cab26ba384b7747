// Reductions over a warp in a fixed order: two runs give the same bits.
#pragma once

#include "block.cuh"

namespace bigft {

// Both give every lane the same bits: lanes are paired crosswise, and each pair forms one sum.
template <class A>
__device__ __forceinline__ A warp_sum(A x) {
#pragma unroll
  for (int width = WARP / 2; width > 0; width /= 2) x += __shfl_xor_sync(ALL_LANES, x, width);
  return x;
}

template <class A>
__device__ __forceinline__ A warp_max(A x) {  // NaN loses against a number, as in fmax
#pragma unroll
  for (int width = WARP / 2; width > 0; width /= 2) {
    x = fmax(x, __shfl_xor_sync(ALL_LANES, x, width));
  }
  return x;
}

// 32 sums over the warp at once: lane i gets the sum of all lanes' x[i]. Each step halves the numbers
// that a lane still carries, so that there are 31 shuffles, not 32 times 5. Overwrites x.
template <int HALF = WARP / 2, class A>
__device__ __forceinline__ A warp_sums(A (&x)[WARP]) {
  const bool upper = (lane_index() & HALF) != 0;
#pragma unroll
  for (int i = 0; i < HALF; ++i) {
    const A given = upper ? x[i] : x[i + HALF];
    const A kept = upper ? x[i + HALF] : x[i];
    x[i] = kept + __shfl_xor_sync(ALL_LANES, given, HALF);
  }
  if constexpr (HALF > 1) {
    return warp_sums<HALF / 2>(x);
  } else {
    return x[0];
  }
}

}  // namespace bigft
