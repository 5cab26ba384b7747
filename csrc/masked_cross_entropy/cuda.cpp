#include "../common/cuda_call.h"
#include "kernels.h"
#include "op.h"

namespace bigft::masked_cross_entropy::cuda {

void loss(const CrossEntropyRows& rows, int device) {
  on_device(device, [&](cudaStream_t stream) { launch_loss(rows, stream); });
}

void statistics_tile(const CrossEntropyTile& tile, int device) {
  on_device(device, [&](cudaStream_t stream) { launch_statistics_tile(tile, stream); });
}

void gradient_tile(const CrossEntropyTile& tile, int device) {
  on_device(device, [&](cudaStream_t stream) { launch_gradient_tile(tile, stream); });
}

void scale(void* x, DType dtype, int64_t numel, const void* factor, bool factor_is_double, int device) {
  on_device(device, [&](cudaStream_t stream) {
    launch_scale(x, dtype, numel, factor, factor_is_double, stream);
  });
}

}  // namespace bigft::masked_cross_entropy::cuda
