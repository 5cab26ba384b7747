// The launcher of kernels.cu. On the current device; throws CudaError. No torch.
#pragma once

#include <cuda_runtime.h>

#include "../common/rows.h"

namespace bigft::token_classification_head {

void launch_forward(const TokenHeadRows& head, cudaStream_t stream);

}  // namespace bigft::token_classification_head
