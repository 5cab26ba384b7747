// Launching a kernel, and what the current device and a kernel's build allow.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <source_location>
#include <string>

#include "cuda_error.h"

namespace bigft {

inline void check(cudaError_t status, std::source_location where = std::source_location::current()) {
  if (status == cudaSuccess) return;
  throw CudaError(std::string(cudaGetErrorString(status)) + " (" + where.file_name() + ":" +
                  std::to_string(where.line()) + ")");
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

// Bytes of shared memory that a block can have if it asks for them.
inline int64_t shared_memory_limit() {
  return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

// Whether the code of the kernel that this device runs was built for clusters: the device alone does
// not say, it may run the PTX of an older one.
template <class... Parameters>
bool has_clusters(void (*kernel)(Parameters...)) {
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel)));
  return attributes.ptxVersion >= 90;
}

constexpr int64_t MAX_BLOCKS = (int64_t{1} << 31) - 1;

struct LaunchShape {
  int64_t blocks;
  int threads;
  int64_t shared_bytes = 0;
  int cluster = 1;  // consecutive blocks that form one; divides blocks
};

template <class... Parameters, class... Arguments>
void launch(
    void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream, Arguments... arguments) {
  // Always the device's limit: another thread may be about to launch the same kernel with more.
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_memory_limit())));
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
  attribute.val.clusterDim.y = 1;
  attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = shape.cluster > 1 ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
  check(cudaGetLastError());
}

}  // namespace bigft
