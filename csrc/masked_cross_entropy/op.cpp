#include "op.h"

#include "../common/check.h"
#include "../common/fault.h"
#include "../operators.h"

namespace bigft::masked_cross_entropy {
namespace {

CrossEntropyRows checked_rows(
    const Tensor& logits, const Tensor& labels, const Tensor& row_weight, const LossOptions& options,
    double scale, Tensor& loss_N, Tensor& lse_N) {
  const at::ScalarType kept = accumulated(logits.scalar_type());
  loss_N = logits.new_empty({logits.size(0)}, kept);
  lse_N = logits.new_empty({logits.size(0)}, kept);
  CrossEntropyRows rows{};
  rows.dtype = dtype_of(logits, "logits_NV");
  rows.num_rows = logits.size(0);
  rows.num_classes = logits.size(1);
  rows.logits = logits.const_data_ptr();
  rows.logits_stride = logits.stride(0);
  rows.labels = labels.const_data_ptr<int64_t>();
  rows.row_weight = row_weight.defined() ? row_weight.const_data_ptr<float>() : nullptr;
  rows.options = options;
  rows.scale = scale;
  rows.loss = loss_N.mutable_data_ptr();
  rows.lse = lse_N.mutable_data_ptr();
  rows.bad_label = bad_label_of(logits);
  return rows;
}

Tensor checked_labels_of(const Tensor& logits, const Tensor& labels, int64_t ignore_index) {
  dtype_of(logits, "logits_NV");
  check_shape(logits, "logits_NV", {-1, -1});
  return checked_labels(labels, logits, "logits_NV", logits.size(0), logits.size(1), ignore_index);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& logits, const Tensor& labels, const OptionalTensor& row_weight, int64_t ignore_index,
    double label_smoothing, double z_loss, double softcap, double scale, bool compute_grad) {
  const LossOptions options = checked_options(ignore_index, label_smoothing, z_loss, softcap);
  const Tensor labels_N = checked_labels_of(logits, labels, ignore_index);
  const Tensor weight_N = checked_row_weight(row_weight, logits, "logits_NV", logits.size(0));
  const Tensor x = with_unit_stride(logits);
  Tensor loss_N, lse_N;
  CrossEntropyRows rows = checked_rows(x, labels_N, weight_N, options, scale, loss_N, lse_N);
  Tensor gradient = x.new_empty({compute_grad ? x.size(0) : 0, x.size(1)});
  if (compute_grad) {
    rows.gradient = gradient.mutable_data_ptr();
    rows.gradient_stride = x.size(1);
  }
  loss(rows, device_index(x));
  return {total_loss(loss_N, scale), loss_N, lse_N, gradient};
}

std::tuple<Tensor, Tensor> forward_(
    Tensor& logits, const Tensor& labels, const OptionalTensor& row_weight, int64_t ignore_index,
    double label_smoothing, double z_loss, double softcap, double scale) {
  const LossOptions options = checked_options(ignore_index, label_smoothing, z_loss, softcap);
  const Tensor labels_N = checked_labels_of(logits, labels, ignore_index);
  const Tensor weight_N = checked_row_weight(row_weight, logits, "logits_NV", logits.size(0));
  TORCH_CHECK_VALUE(logits.size(1) <= 1 || logits.stride(1) == 1,
                    "logits_NV must have stride 1 in its last dimension to be overwritten, not ",
                    logits.strides());
  TORCH_CHECK_VALUE(logits.size(0) <= 1 || logits.stride(0) >= logits.size(1),
                    "logits_NV has rows that share memory (strides ", logits.strides(),
                    "): they cannot be overwritten");
  Tensor loss_N, lse_N;
  CrossEntropyRows rows = checked_rows(logits, labels_N, weight_N, options, scale, loss_N, lse_N);
  rows.gradient = logits.mutable_data_ptr();
  rows.gradient_stride = logits.stride(0);
  loss(rows, device_index(logits));
  return {loss_N, lse_N};
}

Tensor backward(
    const Tensor& grad_loss, const Tensor& logits, const Tensor& labels, const OptionalTensor& row_weight,
    const Tensor& lse, int64_t ignore_index, double label_smoothing, double z_loss, double softcap) {
  const LossOptions options = checked_options(ignore_index, label_smoothing, z_loss, softcap);
  const Tensor labels_N = checked_labels_of(logits, labels, ignore_index);
  const auto kept = accumulated(logits.scalar_type());
  for (const auto& [tensor, name] : {std::pair{&grad_loss, "grad_loss_N"}, {&lse, "lse_N"}}) {
    check_shape(*tensor, name, {logits.size(0)});
    check_device(*tensor, name, logits, "logits_NV");
    TORCH_CHECK_TYPE(tensor->scalar_type() == kept, name, " must be ", kept, ", not ",
                     tensor->scalar_type());
  }
  const Tensor x = with_unit_stride(logits);
  Tensor upstream = grad_loss;
  if (row_weight.has_value()) {
    upstream = upstream.mul(checked_row_weight(row_weight, logits, "logits_NV", logits.size(0)));
  }
  upstream = upstream.contiguous();
  const Tensor lse_N = lse.contiguous();
  Tensor gradient = x.new_empty({x.size(0), x.size(1)});
  CrossEntropyTile tile{};
  tile.dtype = dtype_of(x, "logits_NV");
  tile.num_rows = x.size(0);
  tile.num_classes = tile.num_classes_total = x.size(1);
  tile.logits = x.const_data_ptr();
  tile.logits_stride = x.stride(0);
  tile.gradient = gradient.mutable_data_ptr();
  tile.gradient_stride = x.size(1);
  tile.labels = labels_N.const_data_ptr<int64_t>();
  tile.options = options;
  tile.lse = lse_N.const_data_ptr();
  tile.upstream = upstream.const_data_ptr();
  tile.bad_label = bad_label_of(x);
  gradient_tile(tile, device_index(x));
  return gradient;
}

void scale_(Tensor& x, const Tensor& factor) {
  check_shape(factor, "factor", {});
  check_device(factor, "factor", x, "x");
  if (x.is_cpu()) {
    if (BIGFT_FAULT(forget_upstream)) return;
    if (factor.item<double>() != 1) x.mul_(factor);
    return;
  }
#ifdef BIGFT_CUDA
  TORCH_CHECK_VALUE(x.is_contiguous(), "x must be contiguous, not of strides ", x.strides());
  const bool is_double = factor.scalar_type() == at::kDouble;
  const Tensor kept = is_double ? factor : factor.to(at::kFloat);
  cuda::scale(x.mutable_data_ptr(), dtype_of(x, "x"), x.numel(), kept.const_data_ptr(), is_double,
              x.get_device());
#endif
}

#ifdef BIGFT_CUDA
#define BIGFT_ON_DEVICE(function, rows) device < 0 ? cpu::function(rows) : cuda::function(rows, device)
#else
#define BIGFT_ON_DEVICE(function, rows) (void)device, cpu::function(rows)
#endif
void loss(const CrossEntropyRows& rows, int device) { BIGFT_ON_DEVICE(loss, rows); }
void statistics_tile(const CrossEntropyTile& tile, int device) { BIGFT_ON_DEVICE(statistics_tile, tile); }
void gradient_tile(const CrossEntropyTile& tile, int device) { BIGFT_ON_DEVICE(gradient_tile, tile); }

}  // namespace bigft::masked_cross_entropy
