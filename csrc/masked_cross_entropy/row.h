// One row of logits on the CPU: its sums, its loss, its gradient. Formulas: docs/numerics.md.
//
// A row is visited twice, in blocks that the first-level cache holds: for the running maximum and sum of
// exponentials, and for the gradient. Only the first visit goes to memory.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "../common/fault.h"
#include "../common/numbers.h"
#include "../common/rows.h"

namespace bigft::masked_cross_entropy {

constexpr int64_t BLOCK = 1024;

// fp32 as it lies there, 16-bit floats by way of the buffer.
template <class T>
BIGFT_INLINE const Acc<T>* widened(const T* x, int64_t n, Acc<T>* buffer) {
  if constexpr (std::is_same_v<T, Acc<T>>) {
    return x;
  } else {
    for (int64_t i = 0; i < n; ++i) buffer[i] = widen(x[i]);
    return buffer;
  }
}

template <class A>
BIGFT_INLINE A capped(A x, A softcap) {
  return softcap > 0 ? softcap * tanh_of(x / softcap) : x;
}

template <class A>
struct RowSums {
  A highest;       // -inf where every logit is -inf
  A exponentials;  // the sum of exp(logit - highest)
  A lse;           // highest + log(exponentials), rounded: of 1e4 by 5e-4
  A sum;           // of the capped logits; 0 unless asked for
};

// What a gradient is computed from where lse alone was kept: p within |lse| * 6e-8.
template <class A>
BIGFT_INLINE RowSums<A> sums_of_lse(A lse) {
  return {lse, A(1), lse, A(0)};
}

template <class T>
BIGFT_INLINE RowSums<Acc<T>> row_sums(const T* x, int64_t num_classes, Acc<T> softcap, bool with_sum) {
  using A = Acc<T>;
  constexpr A infinity = std::numeric_limits<A>::infinity();
  alignas(64) A buffer[BLOCK];
  A highest = BIGFT_FAULT(drop_maximum) ? 0 : -infinity;
  double exponentials = 0, sum = 0;  // over the blocks: fp32 within one is exact enough
  for (int64_t start = 0; start < num_classes; start += BLOCK) {
    const int64_t n = std::min(BLOCK, num_classes - start);
    const A* block = widened(x + start, n, buffer);
    if (softcap > 0) {
      for (int64_t i = 0; i < n; ++i) buffer[i] = softcap * tanh_of(block[i] / softcap);
      block = buffer;
    }
    A of_block = -infinity;
#pragma omp simd reduction(max : of_block)
    for (int64_t i = 0; i < n; ++i) of_block = block[i] > of_block ? block[i] : of_block;
    if (of_block > highest && !BIGFT_FAULT(drop_maximum)) {
      exponentials *= std::exp(static_cast<double>(highest) - of_block);  // 0 the first time
      highest = of_block;
    }
    const A shift = highest == -infinity ? 0 : highest;  // -inf - -inf would be NaN
    A sum_of_block = 0;
    of_block = 0;
#pragma omp simd reduction(+ : of_block)
    for (int64_t i = 0; i < n; ++i) of_block += exp_of(block[i] - shift);
    if (with_sum) {
#pragma omp simd reduction(+ : sum_of_block)
      for (int64_t i = 0; i < n; ++i) sum_of_block += block[i];
    }
    exponentials += of_block;
    sum += sum_of_block;
  }
  return {highest, static_cast<A>(exponentials), highest + static_cast<A>(std::log(exponentials)),
          static_cast<A>(sum)};
}

// By distances from the highest logit: lse - target would keep what lse was rounded by.
template <class A>
BIGFT_INLINE A row_loss(
    const RowSums<A>& sums, A target, int64_t num_classes, const LossOptions& options) {
  const A epsilon = static_cast<A>(options.label_smoothing);
  const A log_sum = std::log(sums.exponentials);
  A loss = (sums.highest - target) + log_sum;
  if (epsilon > 0) {
    const A mean = sums.sum / static_cast<A>(num_classes);
    loss = (1 - epsilon) * loss + epsilon * ((sums.highest - mean) + log_sum);
  }
  return loss + static_cast<A>(options.z_loss) * sums.lse * sums.lse;
}

// gradient = factor * dloss/dx, for classes [first_class, first_class + n) of num_classes_total. May
// write over x. `label` counts from the first of these classes and may lie outside of them.
template <class T>
BIGFT_INLINE void row_gradient(
    const T* x, T* gradient, int64_t n, int64_t label, const RowSums<Acc<T>>& sums, Acc<T> factor,
    int64_t num_classes_total, const LossOptions& options) {
  using A = Acc<T>;
  alignas(64) A buffer[BLOCK];
  const A softcap = static_cast<A>(options.softcap);
  const A epsilon = static_cast<A>(options.label_smoothing);
  const A highest = sums.highest;
  const A of_probability = factor * (1 + 2 * static_cast<A>(options.z_loss) * sums.lse) / sums.exponentials;
  const A of_all = -factor * epsilon / static_cast<A>(num_classes_total);
  const auto slope = [=](A logit) __attribute__((always_inline)) {
    return softcap > 0 ? 1 - (logit / softcap) * (logit / softcap) : A(1);
  };

  // From the logit itself and stored once: adding to a rounded bf16 would lose 1 - p near p = 1.
  const bool is_here = label >= 0 && label < n;
  A at_target = 0;
  if (is_here) {
    const A logit = capped(widen(x[label]), softcap);
    const A p = exp_of(logit - highest);
    const A of_target = BIGFT_FAULT(wrong_target_gradient) ? -factor : factor * (epsilon - 1);
    at_target = (of_probability * p + of_all + of_target) * slope(logit);
    if (BIGFT_FAULT(wrong_target_gradient)) at_target *= A(1.01);
  }
  // Elsewhere than the logits, the gradient is written past the caches: fetching its lines first would
  // move as many bytes again.
  alignas(64) T streamed[BLOCK];
  const bool streams = gradient != x && n >= BLOCK;
  for (int64_t start = 0; start < n; start += BLOCK) {
    const int64_t length = std::min(BLOCK, n - start);
    const A* block = widened(x + start, length, buffer);
    T* out = streams ? streamed : gradient + start;
    if (softcap > 0) {
      for (int64_t i = 0; i < length; ++i) {
        const A logit = softcap * tanh_of(block[i] / softcap);
        out[i] = narrow<T>((of_probability * exp_of(logit - highest) + of_all) * slope(logit));
      }
    } else {
      for (int64_t i = 0; i < length; ++i) {
        out[i] = narrow<T>(of_probability * exp_of(block[i] - highest) + of_all);
      }
    }
    if (streams) stream(gradient + start, streamed, length * sizeof(T));
  }
  if (streams) stream_fence();
  if (is_here) gradient[label] = narrow<T>(at_target);
}

template <class T>
BIGFT_INLINE void zero_row(T* gradient, int64_t n) {
  alignas(64) static constexpr T zeros[BLOCK] = {};
  for (int64_t start = 0; start < n; start += BLOCK) {
    stream(gradient + start, zeros, std::min(BLOCK, n - start) * sizeof(T));
  }
  stream_fence();
}

}  // namespace bigft::masked_cross_entropy
