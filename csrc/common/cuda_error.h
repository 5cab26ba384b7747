// A CUDA call or launch that failed. No torch: device files throw it, host files translate it.
#pragma once

#include <stdexcept>

namespace bigft {

struct CudaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace bigft
