// Matrix products whose accumulators and, where asked for, results are fp32.
#pragma once

#include <ATen/core/Tensor.h>

namespace bigft::linear_cross_entropy {

// Whether 16-bit matrices on this device are multiplied by way of fp32 blocks: CPUs without bf16
// instructions, where torch's own product emulates them several times more slowly.
bool multiplies_by_blocks(const at::Tensor& matrix);

// out = a b, or out += a b, over fp32 sums. a and b are of one dtype, or b is fp32 and is rounded to a's
// first (where `multiplies_by_blocks`); out is of a's dtype or fp32. Any of them may be a transposed view.
void product(at::Tensor out, const at::Tensor& a, const at::Tensor& b, bool accumulate);

}  // namespace bigft::linear_cross_entropy
