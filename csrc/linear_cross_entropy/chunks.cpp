// The products of linear_cross_entropy, cut by rows (chunks) or by classes (tiles).
#include <limits>

#include "../common/check.h"
#include "../common/fault.h"
#include "../masked_cross_entropy/op.h"
#include "op.h"
#include "products.h"

namespace bigft::linear_cross_entropy {
namespace {

using at::Tensor;

// Rows of a chunk at least: fewer leave the matrix units idle.
constexpr int64_t MIN_ROWS_CUDA = 1024, MIN_ROWS_CPU = 128;
constexpr int64_t WORKSPACE_CUDA = int64_t{1} << 30, WORKSPACE_CPU = int64_t{16} << 20;
constexpr int64_t MIN_TILE = 1024;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void add_logits(Tensor out, const Tensor& hidden, const Tensor& weight, const Tensor& bias) {
  if (bias.defined()) out.copy_(bias.expand_as(out));  // added within the product: rounded once
  product(out, hidden, weight.t(), bias.defined());
}

// fp32 sums of a gradient over several chunks: the gradient itself where it is wide enough.
Tensor accumulator(const Tensor& gradient, bool several) {
  if (!gradient.defined() || !several || gradient.element_size() >= 4) return gradient;
  if (BIGFT_FAULT(accumulate_weight_in_bf16)) return gradient;
  return gradient.new_empty(gradient.sizes(), at::kFloat);
}

int64_t rows_of_chunk(const Targets& targets, const Gradients& gradients, int64_t workspace_bytes) {
  const Tensor& hidden = targets.hidden;
  const int64_t num_rows = hidden.size(0);
  const int64_t row_bytes = targets.weight.size(0) * hidden.element_size();
  const bool is_cpu = hidden.is_cpu();
  if (workspace_bytes <= 0) {
    workspace_bytes = is_cpu ? WORKSPACE_CPU : WORKSPACE_CUDA;
    // Several chunks would cost an fp32 accumulator: one larger chunk costs less.
    const bool narrow = gradients.weight.defined() && gradients.weight.element_size() < 4;
    const int64_t sums = narrow ? gradients.weight.numel() * 4 : 0;
    if (num_rows * row_bytes <= sums) workspace_bytes = std::max(workspace_bytes, sums);
  }
  const int64_t fitting =
      std::max(is_cpu ? MIN_ROWS_CPU : MIN_ROWS_CUDA, workspace_bytes / std::max<int64_t>(row_bytes, 1));
  return std::max<int64_t>(1, ceil_div(num_rows, ceil_div(std::max<int64_t>(num_rows, 1), fitting)));
}

// For every chunk: its logits, `to_gradient` in place, and the products that make the gradients of it.
template <class ToGradient>
void each_chunk(
    const Targets& targets, Gradients& gradients, int64_t workspace_bytes, const ToGradient& to_gradient) {
  const int64_t num_rows = targets.hidden.size(0), num_classes = targets.weight.size(0);
  const int64_t step = rows_of_chunk(targets, gradients, workspace_bytes);
  const Tensor workspace = targets.hidden.new_empty({step, num_classes});
  const bool several = step < num_rows;
  Tensor grad_weight = accumulator(gradients.weight, several);
  Tensor grad_bias = gradients.bias.defined()
      ? gradients.bias.new_zeros(gradients.bias.sizes(), accumulated(gradients.bias.scalar_type()))
      : Tensor();
  for (int64_t first = 0; first < num_rows; first += step) {
    const int64_t n = std::min(step, num_rows - first);
    const Tensor hidden = targets.hidden.narrow(0, first, n);
    Tensor logits = workspace.narrow(0, 0, n);
    add_logits(logits, hidden, targets.weight, targets.bias);
    to_gradient(logits, first);
    if (gradients.hidden.defined()) {
      product(gradients.hidden.narrow(0, first, n), logits, targets.weight, false);
    }
    if (grad_weight.defined()) product(grad_weight, logits.t(), hidden, first > 0);
    if (grad_bias.defined()) grad_bias.add_(logits.sum(0, false, grad_bias.scalar_type()));
  }
  if (num_rows == 0 && grad_weight.defined()) grad_weight.zero_();
  if (grad_weight.defined() && !grad_weight.is_same(gradients.weight)) gradients.weight.copy_(grad_weight);
  if (grad_bias.defined()) gradients.bias.copy_(grad_bias);
}

CrossEntropyTile tile_of(const Targets& targets, const Tensor& logits, int64_t first_class) {
  CrossEntropyTile tile{};
  tile.dtype = dtype_of(logits, "hidden_NH");
  tile.num_rows = logits.size(0);
  tile.num_classes = logits.size(1);
  tile.num_classes_total = targets.weight.size(0);
  tile.first_class = first_class;
  tile.logits = logits.const_data_ptr();
  tile.logits_stride = logits.stride(0);
  tile.options = targets.options;
  tile.bad_label = bad_label_of(logits);
  return tile;
}

void to_gradient_of_tile(
    const Targets& targets, Tensor logits, const Tensor& labels, const Tensor& lse, const Tensor& upstream,
    int64_t first_class) {
  CrossEntropyTile tile = tile_of(targets, logits, first_class);
  tile.gradient = logits.mutable_data_ptr();
  tile.gradient_stride = logits.stride(0);
  tile.labels = labels.const_data_ptr<int64_t>();
  tile.lse = lse.const_data_ptr();
  tile.upstream = upstream.const_data_ptr();
  masked_cross_entropy::gradient_tile(tile, device_index(logits));
}

}  // namespace

void by_chunks(
    const Targets& targets, Gradients& gradients, Tensor loss, Tensor lse, Tensor predictions,
    int64_t workspace_bytes) {
  each_chunk(targets, gradients, workspace_bytes, [&](Tensor& logits, int64_t first) {
    const int64_t n = logits.size(0);
    if (predictions.defined()) predictions.narrow(0, first, n).copy_(logits.argmax(1));
    CrossEntropyRows rows{};
    rows.dtype = dtype_of(logits, "hidden_NH");
    rows.num_rows = n;
    rows.num_classes = logits.size(1);
    rows.logits = logits.const_data_ptr();
    rows.logits_stride = logits.stride(0);
    if (gradients.any()) rows.gradient = logits.mutable_data_ptr();
    rows.gradient_stride = logits.stride(0);
    rows.labels = targets.labels.const_data_ptr<int64_t>() + first;
    if (targets.row_weight.defined()) {
      rows.row_weight = targets.row_weight.const_data_ptr<float>() + first;
    }
    rows.options = targets.options;
    rows.scale = targets.scale;
    Tensor loss_of_chunk = loss.narrow(0, first, n), lse_of_chunk = lse.narrow(0, first, n);
    rows.loss = loss_of_chunk.mutable_data_ptr();
    rows.lse = lse_of_chunk.mutable_data_ptr();
    rows.bad_label = bad_label_of(logits);
    masked_cross_entropy::loss(rows, device_index(logits));
  });
}

void gradients_by_chunks(
    const Targets& targets, Gradients& gradients, const Tensor& lse, const Tensor& upstream,
    int64_t workspace_bytes) {
  each_chunk(targets, gradients, workspace_bytes, [&](Tensor& logits, int64_t first) {
    const auto chunk = [&](const Tensor& all) { return all.narrow(0, first, logits.size(0)); };
    to_gradient_of_tile(targets, logits, chunk(targets.labels), chunk(lse), chunk(upstream), 0);
  });
}

void by_tiles(
    const Targets& targets, Gradients& gradients, Tensor loss, Tensor lse, Tensor predictions,
    int64_t workspace_bytes) {
  const Tensor& hidden = targets.hidden;
  const int64_t num_rows = hidden.size(0), num_classes = targets.weight.size(0);
  if (workspace_bytes <= 0) workspace_bytes = hidden.is_cpu() ? WORKSPACE_CPU : WORKSPACE_CUDA / 8;
  const int64_t column_bytes = std::max<int64_t>(num_rows, 1) * hidden.element_size();
  const int64_t step = std::min(num_classes, std::max(MIN_TILE, workspace_bytes / column_bytes));
  const Tensor workspace = hidden.new_empty({num_rows * step});
  const auto logits_of = [&](int64_t first) {
    const int64_t n = std::min(step, num_classes - first);
    Tensor logits = workspace.narrow(0, 0, num_rows * n).view({num_rows, n});
    add_logits(logits, hidden, targets.weight.narrow(0, first, n),
               targets.bias.defined() ? targets.bias.narrow(0, first, n) : Tensor());
    return logits;
  };

  // First pass: what the softmax of a row needs to know of all its classes.
  const auto empty_N = [&] { return lse.new_empty({num_rows}); };
  Tensor tile_lse = empty_N(), tile_sum = empty_N(), tile_target = empty_N();
  Tensor sum = lse.new_zeros({num_rows}), target = lse.new_zeros({num_rows}), highest;
  lse.fill_(-std::numeric_limits<double>::infinity());
  if (predictions.defined()) highest = hidden.new_full({num_rows}, -std::numeric_limits<double>::infinity());
  for (int64_t first = 0; first < num_classes; first += step) {
    const Tensor logits = logits_of(first);
    CrossEntropyTile tile = tile_of(targets, logits, first);
    tile.labels = targets.labels.const_data_ptr<int64_t>();
    tile.tile_lse = tile_lse.mutable_data_ptr();
    tile.tile_sum = tile_sum.mutable_data_ptr();
    tile.tile_target = tile_target.mutable_data_ptr();
    masked_cross_entropy::statistics_tile(tile, device_index(logits));
    lse.copy_(lse.logaddexp(tile_lse));
    sum.add_(tile_sum);
    target.add_(tile_target);
    if (predictions.defined() && num_rows > 0) {
      const auto [of_tile, at_class] = logits.max(1);
      const Tensor is_higher = of_tile.gt(highest);
      predictions.copy_(at_class.add(first).where(is_higher, predictions));
      highest = of_tile.where(is_higher, highest);
    }
  }
  const LossOptions& options = targets.options;
  const double epsilon = options.label_smoothing;
  Tensor of_row = lse.sub(target).mul_(1 - epsilon);
  if (epsilon > 0) of_row += lse.sub(sum.div(static_cast<double>(num_classes))).mul_(epsilon);
  if (options.z_loss > 0) of_row += lse.mul(lse).mul_(options.z_loss);
  Tensor upstream = lse.new_full({num_rows}, targets.scale);
  if (targets.row_weight.defined()) {
    of_row *= targets.row_weight;
    upstream *= targets.row_weight;
  }
  // A label that ignore_index names though a caller's target_rows_M does, too.
  const Tensor is_masked = targets.labels.eq(options.ignore_index);
  loss.copy_(of_row.masked_fill(is_masked, 0));
  lse.masked_fill_(is_masked, 0);
  if (!gradients.any()) return;

  // Second pass: the same logits again, and their gradients.
  Tensor grad_hidden;
  if (gradients.hidden.defined()) {
    grad_hidden = hidden.new_zeros(hidden.sizes(), accumulated(hidden.scalar_type()));
  }
  for (int64_t first = 0; first < num_classes; first += step) {
    Tensor logits = logits_of(first);
    const int64_t n = logits.size(1);
    to_gradient_of_tile(targets, logits, targets.labels, lse, upstream, first);
    if (grad_hidden.defined()) product(grad_hidden, logits, targets.weight.narrow(0, first, n), true);
    if (gradients.weight.defined()) product(gradients.weight.narrow(0, first, n), logits.t(), hidden, false);
    if (gradients.bias.defined()) {
      gradients.bias.narrow(0, first, n).copy_(logits.sum(0, false, accumulated(logits.scalar_type())));
    }
  }
  if (grad_hidden.defined()) gradients.hidden.copy_(grad_hidden);
}

}  // namespace bigft::linear_cross_entropy
