// Cross-entropy of one row on the GPU: its sums, its loss, its gradient. Formulas: docs/numerics.md.
//
// Loss and gradient are formed from x - max and the sum of exponentials, not from the rounded lse:
// near a certain prediction (loss 0) or at logits of 1e4 its rounding would be all that is left.
#pragma once

#include <cmath>

#include "numbers.cuh"
#include "reduce.cuh"

namespace bigft {

// A label that is neither ignored nor a class writes the flag and makes its row's loss NaN; the row is
// then treated as masked. The first to come stays, so that row and label belong together.
__device__ __forceinline__ bool is_bad_label(int64_t label, int64_t num_classes, int64_t ignore_index) {
  return label != ignore_index && (label < 0 || label >= num_classes);
}

__device__ __forceinline__ void report_bad_label(BadLabel* flag, int64_t row, int64_t label) {
  auto* first = reinterpret_cast<unsigned long long*>(flag);
  if (atomicCAS(first, 0ull, static_cast<unsigned long long>(row + 1)) == 0ull) flag[1] = label;
}

template <class A, bool CAPPED>
struct Softcap {
  A softcap, inverse;

  __device__ __forceinline__ explicit Softcap(const LossOptions& options)
      : softcap(static_cast<A>(options.softcap)), inverse(static_cast<A>(1 / options.softcap)) {}
  __device__ __forceinline__ A operator()(A x) const { return CAPPED ? softcap * tanh(x * inverse) : x; }
  __device__ __forceinline__ A slope(A capped) const {
    const A of_cap = capped * inverse;
    return CAPPED ? 1 - of_cap * of_cap : A(1);
  }
};

// Exponentials are taken of x - shift. An infinite maximum must not meet itself: inf - inf is NaN,
// while a row of -inf has the lse -inf.
template <class A>
__device__ __forceinline__ A shift_of(A highest) {
  return isinf(highest) ? A(0) : highest;
}

// What a row, or a part of one, comes down to.
template <class A>
struct Sums {
  A highest = static_cast<A>(-INFINITY);
  A exponentials = 0;  // of x - shift_of(highest)
  A total = 0;         // of x

  template <class T, int N>
  __device__ __forceinline__ void add(const A (&x)[N]) {
    A most = x[0];
#pragma unroll
    for (int i = 1; i < N; ++i) most = fmax(most, x[i]);
    if (most > highest) {
      exponentials *= exp_of<T>(highest - shift_of(most));
      highest = most;
    }
    const A shift = shift_of(highest);
    A of_these = 0, total_of_these = 0;  // small sums first: fewer roundings, shorter chains
#pragma unroll
    for (int i = 0; i < N; ++i) {
      of_these += exp_of<T>(x[i] - shift);
      total_of_these += x[i];
    }
    exponentials += of_these;
    total += total_of_these;
  }
};

// Of all lanes' sums; every lane gets the same bits.
template <class T, class A>
__device__ __forceinline__ Sums<A> combined(Sums<A> sums) {
  const A highest = warp_max(sums.highest);
  sums.exponentials = warp_sum(sums.exponentials * exp_of<T>(sums.highest - shift_of(highest)));
  sums.total = warp_sum(sums.total);
  sums.highest = highest;
  return sums;
}

template <class A>
struct RowLoss {
  A loss, lse;

  __device__ __forceinline__ RowLoss(
      const Sums<A>& sums, A target, int64_t num_classes, const LossOptions& options) {
    const A shift = shift_of(sums.highest), log_sum = log(sums.exponentials);
    const A epsilon = static_cast<A>(options.label_smoothing);
    lse = shift + log_sum;
    loss = (shift - target) + log_sum;
    if (epsilon > 0) {
      const A mean = sums.total / static_cast<A>(num_classes);
      loss = (1 - epsilon) * loss + epsilon * ((shift - mean) + log_sum);
    }
    if (options.z_loss > 0) loss += static_cast<A>(options.z_loss) * lse * lse;
  }
};

// factor * dloss/dx of a row with the given shift, sum of exponentials and lse.
template <class T, bool CAPPED>
struct RowGradient {
  using A = Acc<T>;
  Softcap<A, CAPPED> cap;
  A shift, exponentials, factor, of_probability, of_target, of_all;
  A of_exponential;  // factor * of_probability / exponentials

  __device__ __forceinline__ RowGradient(
      A shift, A exponentials, A lse, A factor, int64_t num_classes, const LossOptions& options)
      : cap(options),
        shift(shift),
        exponentials(exponentials),
        factor(factor),
        of_probability(1 + 2 * static_cast<A>(options.z_loss) * lse),
        of_target(static_cast<A>(1 - options.label_smoothing)),
        of_all(static_cast<A>(options.label_smoothing) / static_cast<A>(num_classes)),
        of_exponential(factor * of_probability / exponentials) {
    // Without z-loss the lse, which may be infinite, does not count.
    if (options.z_loss == 0) {
      of_probability = 1;
      of_exponential = factor / exponentials;
    }
  }
  __device__ __forceinline__ A of_other(A x) const {
    const A logit = cap(x);
    return (of_exponential * exp_of<T>(logit - shift) - factor * of_all) * cap.slope(logit);
  }
  // From the logit itself: adding to a rounded bf16 would lose 1 - p near p = 1. The probability is
  // divided out here, once a row, to be as exact as it can be.
  __device__ __forceinline__ A of_label(A x) const {
    const A logit = cap(x);
    const A probability = exp_of<T>(logit - shift) / exponentials;
    return factor * (probability * of_probability - of_target - of_all) * cap.slope(logit);
  }
};

}  // namespace bigft
