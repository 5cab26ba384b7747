// A window of rows in shared memory: which of them have a target, what dropout leaves of them.
#pragma once

#include "../common/cross_entropy.cuh"
#include "../common/philox.h"
#include "../common/vectors.cuh"

namespace bigft::token_classification_head {

constexpr int THREADS = 256;
constexpr int AHEAD = 4;          // loads that a thread has under way
constexpr int MAX_WINDOW = WARP;  // so that one vote of a warp tells which rows have a target

// How shared memory is cut: the window's rows, their scores, their places, and which elements dropout
// kept, as one byte per vector.
struct Layout {
  int window;       // rows
  int vectors;      // of a row; the last may be cut by H
  int classes;      // C up to a multiple of CLASSES
  bool is_aligned;  // every row of hidden, weight and their gradients begins and ends with a vector

  static constexpr int64_t PLACES_BYTES = MAX_WINDOW * sizeof(int64_t);
  __host__ __device__ int64_t row_bytes(int64_t acc_bytes) const {
    return vectors * int64_t{16 + 1} + classes * acc_bytes;
  }
  __host__ __device__ int64_t bytes(int64_t acc_bytes) const {
    return PLACES_BYTES + window * row_bytes(acc_bytes);
  }
};

template <class T>
struct Shared {
  int64_t* places;   // [window]: the row of hidden
  uint4* rows;       // [window, vectors]
  Acc<T>* scores;    // [window, classes], then their gradients
  uint8_t* kept;     // [window, vectors]: bit j is element j of the vector

  __device__ __forceinline__ explicit Shared(const Layout& layout) {
    unsigned char* free = shared_memory();
    places = reinterpret_cast<int64_t*>(free);
    free += Layout::PLACES_BYTES;
    rows = reinterpret_cast<uint4*>(free);
    free += int64_t{16} * layout.window * layout.vectors;
    scores = reinterpret_cast<Acc<T>*>(free);
    free += sizeof(Acc<T>) * layout.window * layout.classes;
    kept = free;
  }
};

// Vector v of a row of `size` elements; what would lie beyond it is 0.
template <class T>
__device__ __forceinline__ uint4 load_vector(const T* row, int v, int64_t size, bool is_aligned) {
  if (is_aligned) return reinterpret_cast<const uint4*>(row)[v];
  T elements[WIDTH<T>];
  const int64_t first = int64_t{v} * WIDTH<T>;
#pragma unroll
  for (int j = 0; j < WIDTH<T>; ++j) {
    elements[j] = first + j < size ? row[first + j] : narrow<T>(Acc<T>(0));
  }
  uint4 vector;
  memcpy(&vector, elements, sizeof(vector));
  return vector;
}

template <class T>
__device__ __forceinline__ void store_vector(
    T* row, int v, int64_t size, bool is_aligned, const uint4& vector) {
  if (is_aligned) {
    reinterpret_cast<uint4*>(row)[v] = vector;
    return;
  }
  T elements[WIDTH<T>];
  memcpy(elements, &vector, sizeof(vector));
  const int64_t first = int64_t{v} * WIDTH<T>;
#pragma unroll
  for (int j = 0; j < WIDTH<T>; ++j) {
    if (first + j < size) row[first + j] = elements[j];
  }
}

// Which elements of vector v of a row dropout keeps, as bits.
template <class T>
__device__ __forceinline__ unsigned kept_bits(
    const TokenHeadRows& head, uint64_t key, uint64_t stream, int64_t row, int v) {
  const uint32_t threshold = dropout_threshold(head.dropout_p);
  const int64_t groups = (head.hidden_size + 3) / 4;
  const int64_t first = int64_t{v} * WIDTH<T>;
  unsigned bits = 0;
#pragma unroll
  for (int j = 0; j < WIDTH<T>; j += 4) {
    const Philox4 random = philox(key, static_cast<uint64_t>(row * groups + (first + j) / 4), stream);
#pragma unroll
    for (int i = 0; i < 4; ++i) bits |= (random.word[i] >= threshold ? 1u : 0u) << (j + i);
  }
  // A vector of doubles is half a group.
  return WIDTH<T> < 4 ? bits >> (first % 4) & ((1u << WIDTH<T>) - 1) : bits;
}

// Zeros in what dropout drops of a vector.
template <class T>
__device__ __forceinline__ uint4 dropped(const uint4& vector, unsigned bits) {
  T elements[WIDTH<T>];
  memcpy(elements, &vector, sizeof(vector));
#pragma unroll
  for (int j = 0; j < WIDTH<T>; ++j) {
    if ((bits >> j & 1) == 0) elements[j] = narrow<T>(Acc<T>(0));
  }
  uint4 kept;
  memcpy(&kept, elements, sizeof(kept));
  return kept;
}

// Looks at the labels of a window: returns which of its rows have a target, one bit each, the same in
// every warp. The first warp writes their places, and the results of the others.
template <class T>
__device__ __forceinline__ unsigned targets_of(
    const TokenHeadRows& head, int64_t first, int num_rows, int64_t* places) {
  using A = Acc<T>;
  const int lane = lane_index();
  const int64_t row = first + lane;
  const bool exists = lane < num_rows;
  const int64_t label = exists ? head.labels[row] : head.options.ignore_index;
  const bool is_bad = is_bad_label(label, head.num_labels, head.options.ignore_index);
  const bool has_target = exists && !is_bad && label != head.options.ignore_index;
  const unsigned targets = __ballot_sync(ALL_LANES, has_target);
  if (warp_index() == 0) {
    if (has_target) {
      places[__popc(targets & ((1u << lane) - 1))] = row;
    } else if (exists) {
      if (is_bad) report_bad_label(head.bad_label, row, label);
      *at<A>(head.loss, row, 1) = is_bad ? static_cast<A>(NAN) : A(0);
      *at<A>(head.lse, row, 1) = is_bad ? static_cast<A>(NAN) : A(0);
      head.predictions[row] = -1;
    }
  }
  return targets;
}

template <class T>
__device__ __forceinline__ void clear_masked(
    const TokenHeadRows& head, const Layout& layout, int64_t first, int num_rows, unsigned targets) {
  for (int r = 0; r < num_rows; ++r) {
    if (targets >> r & 1) continue;
    T* row = at<T>(head.grad_hidden, first + r, head.hidden_size);
    for (int v = static_cast<int>(threadIdx.x); v < layout.vectors; v += THREADS) {
      store_vector<T>(row, v, head.hidden_size, layout.is_aligned, make_uint4(0, 0, 0, 0));
    }
  }
}

template <class T>
__device__ __forceinline__ void load_rows(
    const TokenHeadRows& head, const Layout& layout, const Shared<T>& shared, int num_targets) {
  const bool drops = head.dropout_p > 0;
  const uint64_t key = drops ? static_cast<uint64_t>(head.seed[0]) : 0;
  const uint64_t stream = drops ? static_cast<uint64_t>(head.seed[1]) : 0;
  each_vector<AHEAD>(
      num_targets * layout.vectors,
      [&](int i) {
        const T* row = at<T>(head.hidden, shared.places[i / layout.vectors], head.hidden_stride);
        return load_vector<T>(row, i % layout.vectors, head.hidden_size, layout.is_aligned);
      },
      [&](int i, const uint4& vector) {
        if (!drops) {
          shared.rows[i] = vector;
          return;
        }
        const int64_t row = shared.places[i / layout.vectors];
        const unsigned bits = kept_bits<T>(head, key, stream, row, i % layout.vectors);
        shared.kept[i] = static_cast<uint8_t>(bits);
        shared.rows[i] = dropped<T>(vector, bits);
      });
}

}  // namespace bigft::token_classification_head
