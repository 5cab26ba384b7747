// From an operator's host file to its launcher: the device, its current stream, and errors as torch's.
#pragma once

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

#include "cuda_error.h"

namespace bigft {

template <class Launch>
void on_device(int device, Launch launch) {
  const auto index = static_cast<c10::DeviceIndex>(device);
  const c10::cuda::CUDAGuard guard(index);
  try {
    launch(c10::cuda::getCurrentCUDAStream(index).stream());
  } catch (const CudaError& error) {
    TORCH_CHECK(false, "bigft: ", error.what());
  }
}

}  // namespace bigft
