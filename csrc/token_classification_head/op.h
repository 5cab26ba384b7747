// Dropout, a small linear layer, cross-entropy, argmax and all gradients in one pass. docs/numerics.md.
#pragma once

#include "../common/rows.h"

namespace bigft::token_classification_head {

constexpr int64_t MIN_LABELS = 2, MAX_LABELS = 128;

namespace cpu {
void forward(const TokenHeadRows& rows);
}

namespace cuda {  // device: the index of the device that holds every pointer; on its current stream
void forward(const TokenHeadRows& rows, int device);
}

}  // namespace bigft::token_classification_head
