// Cross-entropy of hidden W^T + b without the logits of all rows. docs/numerics.md.
#pragma once

#include <ATen/core/Tensor.h>

#include "../common/rows.h"

namespace bigft::linear_cross_entropy {

// The M rows that have a target, gathered, and what they are multiplied with.
struct Targets {
  at::Tensor rows;          // int64 [M]; undefined where every row has a target
  at::Tensor hidden;        // [M, H]
  at::Tensor labels;        // int64 [M]
  at::Tensor row_weight;    // fp32 [M], or undefined
  at::Tensor weight;        // [V, H] in hidden's dtype, or as it came (products.h)
  at::Tensor bias;          // [V] in hidden's dtype, or undefined
  LossOptions options;
  double scale;
};

// Which gradients are asked for; undefined tensors are not. They are written, not added to.
struct Gradients {
  at::Tensor hidden;  // [M, H] of hidden's dtype
  at::Tensor weight;  // [V, H] of the weight's dtype
  at::Tensor bias;    // [V] of the bias's dtype
  bool any() const { return hidden.defined() || weight.defined() || bias.defined(); }
};

// By chunks of rows: three products for each. Writes loss and lse ([M], acc) and, where it is defined,
// predictions (int64 [M]).
void by_chunks(
    const Targets& targets, Gradients& gradients, at::Tensor loss, at::Tensor lse, at::Tensor predictions,
    int64_t workspace_bytes);

// The gradients alone, from lse and each row's upstream ([M], acc).
void gradients_by_chunks(
    const Targets& targets, Gradients& gradients, const at::Tensor& lse, const at::Tensor& upstream,
    int64_t workspace_bytes);

// By tiles of the vocabulary: four products, and of the weight's gradient each tile is written once.
void by_tiles(
    const Targets& targets, Gradients& gradients, at::Tensor loss, at::Tensor lse, at::Tensor predictions,
    int64_t workspace_bytes);

}  // namespace bigft::linear_cross_entropy
