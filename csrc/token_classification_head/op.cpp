#include "op.h"

#include "../common/check.h"
#include "../common/fault.h"
#include "../operators.h"

namespace bigft::token_classification_head {
namespace {

// Rows that one partial sum of the weight's gradient covers at least, and partial sums at most. Their
// number depends on the sizes alone, so that the result does not depend on the number of threads.
constexpr int64_t MIN_ROWS = 64;
constexpr int64_t MAX_PARTIALS_CPU = 64, MAX_BYTES_CPU = int64_t{32} << 20;
// Two blocks on each of 132 multiprocessors, windows of 32 rows.
constexpr int64_t MAX_PARTIALS_CUDA = 264, MAX_BYTES_CUDA = int64_t{256} << 20;

int64_t count_partials(const Tensor& hidden, int64_t num_labels, int64_t bytes_of_sum) {
  const bool is_cpu = hidden.is_cpu();
  const int64_t bytes = std::max<int64_t>(1, num_labels * hidden.size(1) * bytes_of_sum);
  const int64_t fitting = (is_cpu ? MAX_BYTES_CPU : MAX_BYTES_CUDA) / bytes;
  const int64_t most = std::clamp<int64_t>(fitting, 1, is_cpu ? MAX_PARTIALS_CPU : MAX_PARTIALS_CUDA);
  return std::clamp<int64_t>(hidden.size(0) / MIN_ROWS, 1, most);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& hidden, const Tensor& weight, const OptionalTensor& bias, const Tensor& labels,
    const OptionalTensor& row_weight, const OptionalTensor& seed, double dropout_p, int64_t ignore_index,
    double label_smoothing, double z_loss, double softcap, double scale, bool compute_grad_hidden,
    bool compute_grad_weight, bool compute_grad_bias) {
  TokenHeadRows rows{};
  rows.options = checked_options(ignore_index, label_smoothing, z_loss, softcap);
  rows.dtype = dtype_of(hidden, "hidden_NH");
  TORCH_CHECK_TYPE(rows.dtype != DType::f16,
                   "hidden_NH must not be float16: gradients would underflow before the loss scale is applied; "
                   "use bfloat16 or float32");
  check_shape(hidden, "hidden_NH", {-1, -1});
  check_shape(weight, "weight_CH", {-1, hidden.size(1)});
  check_beside_hidden(weight, "weight_CH", hidden);
  const int64_t num_rows = hidden.size(0), hidden_size = hidden.size(1), num_labels = weight.size(0);
  TORCH_CHECK_VALUE(num_labels >= MIN_LABELS && num_labels <= MAX_LABELS, "weight_CH must have ", MIN_LABELS,
                    " to ", MAX_LABELS, " rows, one per label, not ", num_labels);
  if (bias.has_value()) {
    check_shape(*bias, "bias_C", {num_labels});
    check_beside_hidden(*bias, "bias_C", hidden);
  }
  TORCH_CHECK_VALUE(dropout_p >= 0 && dropout_p < 1, "dropout_p must be in [0, 1), not ", dropout_p);
  TORCH_CHECK_VALUE(dropout_p == 0 || seed.has_value(), "seed must be given where dropout_p is not 0");

  const Tensor x = with_unit_stride(hidden);
  const Tensor w = weight.to(hidden.scalar_type()).contiguous();
  const Tensor b = bias.has_value() ? bias->to(hidden.scalar_type()).contiguous() : Tensor();
  const Tensor labels_N =
      checked_labels(labels, hidden, "hidden_NH", num_rows, num_labels, ignore_index);
  const Tensor weight_N = checked_row_weight(row_weight, hidden, "hidden_NH", num_rows);
  Tensor seed_2;
  if (dropout_p > 0) {
    TORCH_CHECK_TYPE(seed->scalar_type() == at::kLong, "seed must be int64, not ", seed->scalar_type());
    check_shape(*seed, "seed", {2});
    check_device(*seed, "seed", hidden, "hidden_NH");
    seed_2 = seed->contiguous();
  }

  const at::ScalarType kept = accumulated(hidden.scalar_type());
  const Tensor loss_N = hidden.new_empty({num_rows}, kept), lse_N = hidden.new_empty({num_rows}, kept);
  const int64_t num_partials = count_partials(hidden, num_labels, loss_N.element_size());
  const Tensor predictions_N = hidden.new_empty({num_rows}, at::kLong);
  const Tensor grad_hidden = x.new_empty({compute_grad_hidden ? num_rows : 0, hidden_size});
  Tensor partial_weight, partial_bias;
  if (compute_grad_weight) partial_weight = hidden.new_empty({num_partials, num_labels, hidden_size}, kept);
  if (compute_grad_bias && bias.has_value()) {
    partial_bias = hidden.new_empty({num_partials, num_labels}, kept);
  }

  rows.num_rows = num_rows;
  rows.hidden_size = hidden_size;
  rows.num_labels = num_labels;
  rows.hidden = x.const_data_ptr();
  rows.hidden_stride = x.stride(0);
  rows.weight = w.const_data_ptr();
  rows.bias = b.defined() ? b.const_data_ptr() : nullptr;
  rows.labels = labels_N.const_data_ptr<int64_t>();
  rows.row_weight = weight_N.defined() ? weight_N.const_data_ptr<float>() : nullptr;
  rows.seed = seed_2.defined() ? seed_2.const_data_ptr<int64_t>() : nullptr;
  rows.dropout_p = dropout_p;
  rows.scale = scale;
  rows.loss = loss_N.mutable_data_ptr();
  rows.lse = lse_N.mutable_data_ptr();
  rows.predictions = predictions_N.mutable_data_ptr<int64_t>();
  rows.grad_hidden = compute_grad_hidden ? grad_hidden.mutable_data_ptr() : nullptr;
  rows.partial_weight = partial_weight.defined() ? partial_weight.mutable_data_ptr() : nullptr;
  rows.partial_bias = partial_bias.defined() ? partial_bias.mutable_data_ptr() : nullptr;
  rows.num_partials = num_partials;
  rows.bad_label = bad_label_of(hidden);
  if (num_rows == 0) {
    if (partial_weight.defined()) partial_weight.zero_();
    if (partial_bias.defined()) partial_bias.zero_();
  } else if (hidden.is_cpu()) {
    cpu::forward(rows);
#ifdef BIGFT_CUDA
  } else {
    cuda::forward(rows, device_index(hidden));
#endif
  }

  const auto summed = [&](const Tensor& partials, at::ScalarType dtype) {
    return partials.defined() ? partials.sum(0).to(dtype) : hidden.new_empty({0}, dtype);
  };
  return {total_loss(loss_N, scale), loss_N, lse_N, predictions_N,
          compute_grad_hidden ? grad_hidden : x.new_empty({0}),
          summed(partial_weight, weight.scalar_type()),
          summed(partial_bias, bias.has_value() ? bias->scalar_type() : weight.scalar_type())};
}

}  // namespace bigft::token_classification_head
