// Stands in for CUDA's header of this name: clusters.
#pragma once

#include "cuda_runtime.h"

namespace cooperative_groups {

struct cluster_group {
  static unsigned num_blocks() { return static_cast<unsigned>(emulation::cluster_size()); }
  static unsigned block_rank() { return static_cast<unsigned>(emulation::cluster_rank()); }
  static void barrier_arrive() { emulation::arrive_cluster(); }
  static void barrier_wait() { emulation::wait_cluster(); }
  static void sync() {
    barrier_arrive();
    barrier_wait();
  }
  template <class T>
  static T* map_shared_rank(T* mine, int rank) {
    const auto offset = reinterpret_cast<unsigned char*>(mine) - emulation::shared_memory();
    return reinterpret_cast<T*>(emulation::shared_memory_of(rank) + offset);
  }
};

}  // namespace cooperative_groups
