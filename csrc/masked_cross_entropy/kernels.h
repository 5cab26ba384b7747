// The launchers of kernels.cu. On the current device; throw CudaError. No torch.
#pragma once

#include <cuda_runtime.h>

#include "../common/rows.h"

namespace bigft::masked_cross_entropy {

void launch_loss(const CrossEntropyRows& rows, cudaStream_t stream);
void launch_statistics_tile(const CrossEntropyTile& tile, cudaStream_t stream);
void launch_gradient_tile(const CrossEntropyTile& tile, cudaStream_t stream);
void launch_scale(
    void* x, DType dtype, int64_t numel, const void* factor, bool factor_is_double, cudaStream_t stream);

}  // namespace bigft::masked_cross_entropy
