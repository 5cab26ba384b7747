// Stands in for CUDA's header of this name, so that g++ compiles the kernels and a CPU runs them.
//
// A thread is a fiber: it runs until it waits for others of its warp, block or cluster. Blocks of a
// cluster run together, clusters one after the other. This shows what the kernels compute. It shows
// nothing of speed, and of races only what the first warp far ahead of the last, or the last far
// ahead of the first, brings to light.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <algorithm>
#include <functional>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __CUDA_ARCH__ 900

using std::exp, std::fmax, std::isinf, std::isnan, std::log, std::max, std::min, std::tanh;

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the fiber that runs

namespace emulation {

// What the device is, and in which order its threads get their turns; set by tests.
struct Device {
  int ptx_version = 90;
  int shared_limit = 227 * 1024;
  bool backwards = false;
};
inline Device device;

unsigned char* shared_memory();
unsigned char* shared_memory_of(int rank);  // in the cluster
int cluster_size();
int cluster_rank();
void sync_block();
void arrive_cluster();
void wait_cluster();
// Every lane puts down 8 bytes; returns the 32 of the warp. Ends with take(), when all have read.
const uint64_t* exchange(uint64_t mine);
void take();
void run(dim3 grid, dim3 block, size_t shared_bytes, int cluster, const std::function<void()>& kernel);

template <class T>
T of_lane(T mine, int lane) {
  uint64_t bits = 0;
  std::memcpy(&bits, &mine, sizeof(mine));
  T theirs;
  std::memcpy(&theirs, exchange(bits) + lane, sizeof(theirs));
  take();
  return theirs;
}

}  // namespace emulation

inline void __syncthreads() { emulation::sync_block(); }
template <class T>
T __shfl_xor_sync(unsigned, T mine, int mask) {
  return emulation::of_lane(mine, static_cast<int>(threadIdx.x % 32) ^ mask);
}
template <class T>
T __shfl_sync(unsigned, T mine, int lane) {
  return emulation::of_lane(mine, lane);
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  const uint64_t* votes = emulation::exchange(vote);
  unsigned all = 0;
  for (int lane = 0; lane < 32; ++lane) all |= static_cast<unsigned>(votes[lane]) << lane;
  emulation::take();
  return all;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline float __expf(float x) { return std::exp(x); }
inline unsigned long long atomicCAS(
    unsigned long long* at, unsigned long long expected, unsigned long long desired) {
  const unsigned long long old = *at;
  if (old == expected) *at = desired;
  return old;
}

enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration };
using cudaStream_t = void*;
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin, cudaDevAttrMultiProcessorCount };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension };
struct cudaFuncAttributes {
  int ptxVersion;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    dim3 clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  int numAttrs;
};
inline const char* cudaGetErrorString(cudaError_t) { return "invalid launch configuration"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 1 : emulation::device.shared_limit;
  return cudaSuccess;
}
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->ptxVersion = emulation::device.ptx_version;
  return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(
    const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments... arguments) {
  const unsigned cluster = config->numAttrs > 0 ? config->attrs[0].val.clusterDim.x : 1;
  const unsigned threads = config->blockDim.x, blocks = config->gridDim.x;
  const bool fits = config->dynamicSmemBytes <= static_cast<size_t>(emulation::device.shared_limit);
  if (!fits || blocks == 0 || threads == 0 || threads % 32 || threads > 1024 || cluster == 0 || cluster > 8 ||
      blocks % cluster || (cluster > 1 && emulation::device.ptx_version < 90)) {
    return cudaErrorInvalidConfiguration;
  }
  emulation::run(config->gridDim, config->blockDim, config->dynamicSmemBytes, static_cast<int>(cluster),
                 [&] { kernel(arguments...); });
  return cudaSuccess;
}
