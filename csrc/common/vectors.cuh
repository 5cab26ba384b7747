// Runs of elements as 16-byte vectors, wherever they begin and end.
#pragma once

#include "block.cuh"
#include "numbers.cuh"

namespace bigft {

template <class T>
__device__ __forceinline__ const T* at(const void* base, int64_t index, int64_t stride) {
  return static_cast<const T*>(base) + index * stride;
}
template <class T>
__device__ __forceinline__ T* at(void* base, int64_t index, int64_t stride) {
  return static_cast<T*>(base) + index * stride;
}

__device__ __forceinline__ bool same_phase(const void* a, const void* b) {
  return ((reinterpret_cast<uintptr_t>(a) ^ reinterpret_cast<uintptr_t>(b)) & 15) == 0;
}

// A run's vectors lie between its first and its last 16-byte boundary. So the rows of a matrix with
// odd rows are read by vectors too; what is left at their two ends is loose. Within a row 32 bits count
// (launchers refuse longer ones): wider numbers would take the registers that loads under way need.
template <class T, class Index = int>
struct Run {
  Index head;     // loose elements in front of the first vector
  Index vectors;  // whole vectors
  int loose;      // elements outside of them, at both ends: fewer than 2 * WIDTH

  __device__ __forceinline__ Run(const T* start, int64_t size) {
    const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(start) & 15);
    head = static_cast<Index>(min(size, (16 - past) % 16 / static_cast<int64_t>(sizeof(T))));
    vectors = static_cast<Index>((size - head) / WIDTH<T>);
    loose = static_cast<int>(size - static_cast<int64_t>(vectors) * WIDTH<T>);
  }
  __device__ __forceinline__ Index of_loose(int i) const {
    return i < head ? i : i + vectors * WIDTH<T>;
  }
  // Whether this thread has a loose element; thread i has the i-th.
  __device__ __forceinline__ bool has_loose() const { return static_cast<int>(threadIdx.x) < loose; }
};

// The consecutive vectors that a block takes, of those that its cluster shares.
struct Share {
  int first;
  int size;

  __device__ __forceinline__ explicit Share(int vectors) {
    const int each = (vectors + Cluster::size() - 1) / Cluster::size();
    first = min(vectors, each * Cluster::rank());
    size = min(each, vectors - first);
  }
};

// visit(i, load(i)) for i in [0, size), shared out among the block's threads. A thread has AHEAD loads
// under way before it uses the first: one at a time leaves most of the bandwidth idle.
template <int AHEAD, class Load, class Visit>
__device__ __forceinline__ void each_vector(int size, Load load, Visit visit) {
  const int step = static_cast<int>(blockDim.x);
  for (int start = static_cast<int>(threadIdx.x); start < size; start += AHEAD * step) {
    uint4 vector[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      if (start + i * step < size) vector[i] = load(start + i * step);
    }
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      if (start + i * step < size) visit(start + i * step, vector[i]);
    }
  }
}

// Zeros over a run that the cluster's blocks share.
template <class T>
__device__ __forceinline__ void fill_zero(T* start, int64_t size) {
  const Run<T> run(start, size);
  const Share share(run.vectors);
  uint4* vectors = reinterpret_cast<uint4*>(start + run.head) + share.first;
  for (int i = static_cast<int>(threadIdx.x); i < share.size; i += static_cast<int>(blockDim.x)) {
    vectors[i] = make_uint4(0, 0, 0, 0);
  }
  if (Cluster::rank() == 0 && run.has_loose()) start[run.of_loose(threadIdx.x)] = narrow<T>(Acc<T>(0));
}

}  // namespace bigft
