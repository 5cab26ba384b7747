// Cross-entropy over rows of logits: loss and gradient in one visit of each row. docs/numerics.md.
#pragma once

#include "../common/rows.h"

namespace bigft::masked_cross_entropy {

// On the device of the rows. `device` is its index, -1 the CPU; CUDA works on its current stream.
void loss(const CrossEntropyRows& rows, int device);
void statistics_tile(const CrossEntropyTile& tile, int device);
void gradient_tile(const CrossEntropyTile& tile, int device);

namespace cpu {
void loss(const CrossEntropyRows& rows);
void statistics_tile(const CrossEntropyTile& tile);
void gradient_tile(const CrossEntropyTile& tile);
}  // namespace cpu

namespace cuda {
void loss(const CrossEntropyRows& rows, int device);
void statistics_tile(const CrossEntropyTile& tile, int device);
void gradient_tile(const CrossEntropyTile& tile, int device);
// x *= *factor, which lies on the device; nothing is written where it is 1.
void scale(void* x, DType dtype, int64_t numel, const void* factor, bool factor_is_double, int device);
}  // namespace cuda

}  // namespace bigft::masked_cross_entropy
