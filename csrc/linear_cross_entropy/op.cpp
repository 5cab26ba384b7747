#include "op.h"

#include "../common/check.h"
#include "../operators.h"
#include "products.h"

namespace bigft::linear_cross_entropy {
namespace {

// Indices that would be read or counted twice are refused where looking at them costs no host sync.
void check_target_rows(const Tensor& rows, const Tensor& labels, int64_t ignore_index) {
  TORCH_CHECK_TYPE(rows.scalar_type() == at::kLong, "target_rows_M must be int64, not ", rows.scalar_type());
  check_shape(rows, "target_rows_M", {-1});
  check_device(rows, "target_rows_M", labels, "labels_N");
  if (!rows.is_cpu()) return;
  const Tensor row_M = rows.contiguous();
  const int64_t* row = row_M.const_data_ptr<int64_t>();
  int64_t last = -1;
  for (int64_t i = 0; i < row_M.size(0); ++i) {
    TORCH_CHECK_INDEX(row[i] > last && row[i] < labels.size(0), "target_rows_M[", i, "] is ", row[i],
                      "; rows must ascend and lie in [0, ", labels.size(0), ")");
    last = row[i];
  }
  const int64_t num_targets = labels.ne(ignore_index).sum().item<int64_t>();
  const int64_t num_named = labels.index_select(0, row_M).ne(ignore_index).sum().item<int64_t>();
  TORCH_CHECK_VALUE(num_named == num_targets, "target_rows_M names ", num_named, " of the ", num_targets,
                    " rows whose label is not ignore_index (", ignore_index, ")");
}

Targets gathered(
    const Tensor& hidden, const Tensor& weight, const OptionalTensor& bias, const Tensor& labels,
    const OptionalTensor& target_rows, const OptionalTensor& row_weight, const LossOptions& options,
    double scale) {
  dtype_of(hidden, "hidden_NH");
  check_shape(hidden, "hidden_NH", {-1, -1});
  check_shape(weight, "weight_VH", {-1, hidden.size(1)});
  check_beside_hidden(weight, "weight_VH", hidden);
  if (bias.has_value()) {
    check_shape(*bias, "bias_V", {weight.size(0)});
    check_beside_hidden(*bias, "bias_V", hidden);
  }
  const int64_t num_rows = hidden.size(0);
  Targets targets;
  targets.options = options;
  targets.scale = scale;
  targets.labels = checked_labels(
      labels, hidden, "hidden_NH", num_rows, weight.size(0), options.ignore_index);
  targets.row_weight = checked_row_weight(row_weight, hidden, "hidden_NH", num_rows);
  targets.hidden = hidden;
  if (target_rows.has_value()) {
    check_target_rows(*target_rows, targets.labels, options.ignore_index);
    targets.rows = *target_rows;
  } else {
    targets.rows = targets.labels.ne(options.ignore_index).nonzero().squeeze(1);  // the host sync
  }
  if (targets.rows.size(0) == num_rows) {
    targets.rows = Tensor();
  } else {
    targets.hidden = hidden.index_select(0, targets.rows);
    targets.labels = targets.labels.index_select(0, targets.rows);
    if (targets.row_weight.defined()) {
      targets.row_weight = targets.row_weight.index_select(0, targets.rows);
    }
  }
  targets.weight = multiplies_by_blocks(hidden) ? weight : weight.to(hidden.scalar_type());
  if (bias.has_value()) targets.bias = bias->to(hidden.scalar_type());
  return targets;
}

// An undefined tensor cannot be returned: what was not asked for has no elements.
Tensor returned(const Tensor& tensor, const Tensor& like) {
  return tensor.defined() ? tensor : like.new_empty({0});
}

Tensor scattered(const Targets& targets, const Tensor& of_targets, int64_t num_rows, double fill) {
  if (!targets.rows.defined()) return of_targets;
  std::vector<int64_t> shape = of_targets.sizes().vec();
  shape[0] = num_rows;
  return of_targets.new_full(shape, fill).index_copy_(0, targets.rows, of_targets);
}

Gradients empty_gradients(
    const Targets& targets, const Tensor& weight, const OptionalTensor& bias, bool of_hidden,
    bool of_weight, bool of_bias) {
  Gradients gradients;
  if (of_hidden) gradients.hidden = targets.hidden.new_empty(targets.hidden.sizes());
  if (of_weight) gradients.weight = weight.new_empty(weight.sizes());
  if (of_bias && bias.has_value()) gradients.bias = bias->new_empty(bias->sizes());
  return gradients;
}

std::tuple<Tensor, Tensor, Tensor> returned(
    const Targets& targets, const Gradients& gradients, const Tensor& hidden, const Tensor& weight) {
  Tensor grad_hidden;
  if (gradients.hidden.defined()) {
    grad_hidden = scattered(targets, gradients.hidden, hidden.size(0), 0);
  }
  return {returned(grad_hidden, hidden), returned(gradients.weight, weight),
          returned(gradients.bias, weight)};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& hidden, const Tensor& weight, const OptionalTensor& bias, const Tensor& labels,
    const OptionalTensor& target_rows, const OptionalTensor& row_weight, int64_t ignore_index,
    double label_smoothing, double z_loss, double softcap, double scale, int64_t workspace_bytes, bool lean,
    bool compute_predictions, bool compute_grad_hidden, bool compute_grad_weight, bool compute_grad_bias) {
  const LossOptions options = checked_options(ignore_index, label_smoothing, z_loss, softcap);
  const Targets targets =
      gathered(hidden, weight, bias, labels, target_rows, row_weight, options, scale);
  Gradients gradients = empty_gradients(
      targets, weight, bias, compute_grad_hidden, compute_grad_weight, compute_grad_bias);
  const at::ScalarType kept = accumulated(hidden.scalar_type());
  const int64_t num_targets = targets.hidden.size(0);
  const Tensor loss_M = hidden.new_empty({num_targets}, kept), lse_M = hidden.new_empty({num_targets}, kept);
  Tensor predictions_M;
  if (compute_predictions) predictions_M = hidden.new_zeros({num_targets}, at::kLong);
  (lean ? by_tiles : by_chunks)(targets, gradients, loss_M, lse_M, predictions_M, workspace_bytes);

  const int64_t num_rows = hidden.size(0);
  const Tensor loss_N = scattered(targets, loss_M, num_rows, 0);
  Tensor predictions_N;
  if (compute_predictions) {
    predictions_M.masked_fill_(targets.labels.eq(ignore_index), -1);
    predictions_N = scattered(targets, predictions_M, num_rows, -1);
  }
  const auto [grad_hidden, grad_weight, grad_bias] = returned(targets, gradients, hidden, weight);
  return {total_loss(loss_M, scale), loss_N, scattered(targets, lse_M, num_rows, 0),
          returned(predictions_N, targets.labels), grad_hidden, grad_weight, grad_bias};
}

std::tuple<Tensor, Tensor, Tensor> backward(
    const Tensor& grad_loss, const Tensor& hidden, const Tensor& weight, const OptionalTensor& bias,
    const Tensor& labels, const OptionalTensor& target_rows, const OptionalTensor& row_weight,
    const Tensor& lse, int64_t ignore_index, double label_smoothing, double z_loss, double softcap,
    int64_t workspace_bytes, bool compute_grad_hidden, bool compute_grad_weight, bool compute_grad_bias) {
  const LossOptions options = checked_options(ignore_index, label_smoothing, z_loss, softcap);
  const Targets targets = gathered(hidden, weight, bias, labels, target_rows, row_weight, options, 1);
  check_shape(grad_loss, "grad_loss_N", {hidden.size(0)});
  check_shape(lse, "lse_N", {hidden.size(0)});
  const auto of_targets = [&](const Tensor& all) {
    return targets.rows.defined() ? all.index_select(0, targets.rows) : all.contiguous();
  };
  Tensor upstream_M = of_targets(grad_loss);
  if (targets.row_weight.defined()) upstream_M = upstream_M.mul(targets.row_weight);
  Gradients gradients = empty_gradients(
      targets, weight, bias, compute_grad_hidden, compute_grad_weight, compute_grad_bias);
  gradients_by_chunks(targets, gradients, of_targets(lse), upstream_M, workspace_bytes);
  return returned(targets, gradients, hidden, weight);
}

}  // namespace bigft::linear_cross_entropy
