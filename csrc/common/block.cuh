// What the threads of a block, and the blocks of a cluster, have in common.
#pragma once

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace bigft {

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x) % WARP; }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x) / WARP; }
__device__ __forceinline__ int num_warps() { return static_cast<int>(blockDim.x) / WARP; }

// The block's dynamic shared memory, on a 16-byte boundary. Kernels have no other.
__device__ __forceinline__ unsigned char* shared_memory() {
#ifdef BIGFT_EMULATION  // tests/cuda/emulation
  return emulation::shared_memory();
#else
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  return shared_bytes;
#endif
}

// The blocks that a launch put together, which can read each other's shared memory. A block is alone
// in its cluster where the launch asked for none, which before sm_90 is always.
struct Cluster {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  static __device__ __forceinline__ int size() {
    return static_cast<int>(cooperative_groups::cluster_group::num_blocks());
  }
  static __device__ __forceinline__ int rank() {
    return static_cast<int>(cooperative_groups::cluster_group::block_rank());
  }
  static __device__ __forceinline__ void sync() { cooperative_groups::cluster_group::sync(); }
  // A sync in two halves: what is between them does not wait for the other blocks.
  static __device__ __forceinline__ void arrive() {
    cooperative_groups::cluster_group::barrier_arrive();
  }
  static __device__ __forceinline__ void wait() { cooperative_groups::cluster_group::barrier_wait(); }
  // Where the block of that rank has what this block has at `mine`.
  template <class T>
  static __device__ __forceinline__ const T* theirs(T* mine, int rank) {
    return cooperative_groups::cluster_group::map_shared_rank(mine, rank);
  }
#else
  static __device__ __forceinline__ int size() { return 1; }
  static __device__ __forceinline__ int rank() { return 0; }
  static __device__ __forceinline__ void sync() {}
  static __device__ __forceinline__ void arrive() {}
  static __device__ __forceinline__ void wait() {}
  template <class T>
  static __device__ __forceinline__ const T* theirs(T* mine, int) {
    return mine;
  }
#endif
};

}  // namespace bigft
