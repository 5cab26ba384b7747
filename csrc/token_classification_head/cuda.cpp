#include "../common/cuda_call.h"
#include "kernels.h"
#include "op.h"

namespace bigft::token_classification_head::cuda {

void forward(const TokenHeadRows& rows, int device) {
  on_device(device, [&](cudaStream_t stream) { launch_forward(rows, stream); });
}

}  // namespace bigft::token_classification_head::cuda
