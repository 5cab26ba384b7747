// What a loss kernel is told: raw pointers, sizes and options. No torch, so that device files can include it.
//
// Shapes: N rows, V classes, H hidden units, C labels. "acc" is double for f64 and float for every other dtype.
#pragma once

#include <cstdint>

namespace bigft {

enum class DType { f64, f32, bf16, f16 };

struct LossOptions {
  int64_t ignore_index;    // a row with this label is masked: loss 0, gradient 0, never read
  double label_smoothing;  // epsilon, in [0, 1)
  double z_loss;           // lambda, >= 0: adds lambda * lse^2
  double softcap;          // > 0: logits become softcap * tanh(logits / softcap); 0: they stay
};

// Written by a CUDA kernel that meets a label out of range: {1 + row, label}; {0, 0} if none did.
// The CPU's labels are checked before a kernel runs.
using BadLabel = int64_t;

// Loss, logsumexp and, where `gradient` is set, scale * row_weight * dloss/dlogits of every row.
struct CrossEntropyRows {
  DType dtype;
  int64_t num_rows;
  int64_t num_classes;
  const void* logits;  // [N, V] of dtype, inner stride 1
  int64_t logits_stride;
  void* gradient;  // [N, V] of dtype, or null; may be `logits`
  int64_t gradient_stride;
  const int64_t* labels;    // [N]
  const float* row_weight;  // [N], or null: 1
  LossOptions options;
  double scale;
  void* loss;           // [N] acc: row_weight * loss; 0 where masked
  void* lse;            // [N] acc; 0 where masked
  BadLabel* bad_label;  // int64[2]; null on the CPU
};

// One tile of V classes out of `num_classes_total`, the first of which is class `first_class`; a
// label may lie in another tile, and its row is masked only if the label is `ignore_index`.
struct CrossEntropyTile {
  DType dtype;
  int64_t num_rows;
  int64_t num_classes;  // of the tile
  int64_t num_classes_total;
  int64_t first_class;
  const void* logits;  // [N, tile] of dtype, inner stride 1
  int64_t logits_stride;
  void* gradient;  // gradient_tile: [N, tile] of dtype; may be `logits`
  int64_t gradient_stride;
  const int64_t* labels;  // [N]
  LossOptions options;
  // statistics_tile writes, 0 in masked rows:
  void* tile_lse;     // [N] acc: logsumexp over the tile
  void* tile_sum;     // [N] acc: the sum of the tile's capped logits
  void* tile_target;  // [N] acc: the target's capped logit, 0 if it lies in another tile
  // gradient_tile reads:
  const void* lse;      // [N] acc: over all classes
  const void* upstream;  // [N] acc: what each row's dloss/dlogits is multiplied by
  BadLabel* bad_label;  // int64[2]; null on the CPU
};

// The token-classification head: dropout, linear, cross-entropy, argmax and all gradients.
struct TokenHeadRows {
  DType dtype;  // of hidden, weight, bias and grad_hidden
  int64_t num_rows;
  int64_t hidden_size;
  int64_t num_labels;  // C, 2 to 128
  const void* hidden;  // [N, H], inner stride 1
  int64_t hidden_stride;
  const void* weight;       // [C, H] contiguous
  const void* bias;         // [C], or null: 0
  const int64_t* labels;    // [N]
  const float* row_weight;  // [N], or null: 1
  const int64_t* seed;      // [2] on the rows' device, or null where dropout_p is 0
  double dropout_p;         // in [0, 1)
  LossOptions options;
  double scale;
  void* loss;            // [N] acc: row_weight * loss; 0 where masked
  void* lse;             // [N] acc; 0 where masked
  int64_t* predictions;  // [N]: the lowest of the largest logits; -1 where masked
  void* grad_hidden;     // [N, H] of dtype contiguous, or null; 0 where masked
  void* partial_weight;  // [num_partials, C, H] acc, or null; every element is written
  void* partial_bias;    // [num_partials, C] acc, or null; every element is written
  int64_t num_partials;  // row blocks of equal size; sums over the first axis are the gradients
  BadLabel* bad_label;   // int64[2]; null on the CPU
};

}  // namespace bigft
