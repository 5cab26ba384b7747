#include "check.h"

#include <ATen/ops/from_blob.h>

#include <map>
#include <mutex>

namespace bigft {
namespace {

std::mutex flags_mutex;

// Never destroyed: CUDA may be gone before static objects are.
std::map<int, at::Tensor>& flags() {
  static auto* flags = new std::map<int, at::Tensor>();
  return *flags;
}

}  // namespace

DType dtype_of(const at::Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case at::kDouble: return DType::f64;
    case at::kFloat: return DType::f32;
    case at::kBFloat16: return DType::bf16;
    case at::kHalf: return DType::f16;
    default:
      TORCH_CHECK_TYPE(false, name, " must be float32, bfloat16, float16 or float64, not ",
                       tensor.scalar_type());
  }
}

at::ScalarType accumulated(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

void check_shape(const at::Tensor& tensor, const char* name, at::IntArrayRef shape) {
  bool fits = tensor.dim() == static_cast<int64_t>(shape.size());
  for (size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] == -1 || tensor.size(i) == shape[i];
  if (fits) return;
  std::string wanted;
  for (const int64_t size : shape) {
    wanted += (wanted.empty() ? "" : ", ") + (size == -1 ? "any" : std::to_string(size));
  }
  TORCH_CHECK_VALUE(false, name, " must have the shape [", wanted, "], not ", tensor.sizes());
}

void check_device(
    const at::Tensor& tensor, const char* name, const at::Tensor& beside, const char* beside_name) {
  TORCH_CHECK_VALUE(tensor.device() == beside.device(), name, " must be on ", beside_name, "'s device ",
                    beside.device(), ", not on ", tensor.device());
}

void check_beside_hidden(const at::Tensor& parameter, const char* name, const at::Tensor& hidden) {
  dtype_of(parameter, name);
  check_device(parameter, name, hidden, "hidden_NH");
  const bool is_master = parameter.scalar_type() == at::kFloat && hidden.element_size() == 2;
  TORCH_CHECK_TYPE(parameter.scalar_type() == hidden.scalar_type() || is_master, name, " must be ",
                   hidden.scalar_type(), " as hidden_NH, or float32 beside 16 bits, not ",
                   parameter.scalar_type());
}

at::Tensor checked_labels(
    const at::Tensor& labels, const at::Tensor& beside, const char* beside_name, int64_t num_rows,
    int64_t num_classes, int64_t ignore_index) {
  TORCH_CHECK_TYPE(labels.scalar_type() == at::kLong || labels.scalar_type() == at::kInt,
                   "labels_N must be int64 or int32, not ", labels.scalar_type());
  check_shape(labels, "labels_N", {num_rows});
  check_device(labels, "labels_N", beside, beside_name);
  at::Tensor checked = labels.to(at::kLong).contiguous();
  if (!labels.is_cpu()) return checked;
  const int64_t* label = checked.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < num_rows; ++row) {
    TORCH_CHECK_INDEX((label[row] >= 0 && label[row] < num_classes) || label[row] == ignore_index,
                      "labels_N[", row, "] is ", label[row], ", which is neither in [0, ", num_classes,
                      ") nor ignore_index (", ignore_index, ")");
  }
  return checked;
}

at::Tensor checked_row_weight(
    const std::optional<at::Tensor>& row_weight, const at::Tensor& beside, const char* beside_name,
    int64_t num_rows) {
  if (!row_weight.has_value()) return {};
  TORCH_CHECK_TYPE(row_weight->scalar_type() == at::kFloat, "row_weight_N must be float32, not ",
                   row_weight->scalar_type());
  check_shape(*row_weight, "row_weight_N", {num_rows});
  check_device(*row_weight, "row_weight_N", beside, beside_name);
  return row_weight->contiguous();
}

LossOptions checked_options(int64_t ignore_index, double label_smoothing, double z_loss, double softcap) {
  TORCH_CHECK_VALUE(label_smoothing >= 0 && label_smoothing < 1,
                    "label_smoothing must be in [0, 1), not ", label_smoothing);
  TORCH_CHECK_VALUE(z_loss >= 0 && std::isfinite(z_loss), "z_loss must be 0 or more, not ", z_loss);
  const float in_fp32 = static_cast<float>(softcap);  // what most rows are computed in
  TORCH_CHECK_VALUE(softcap == 0 || (in_fp32 > 0 && std::isfinite(in_fp32)),
                    "softcap must be 0 (none) or a positive number of float32's range, not ", softcap);
  return {ignore_index, label_smoothing, z_loss, softcap};
}

at::Tensor with_unit_stride(const at::Tensor& tensor) {
  const bool is_unit = tensor.size(-1) <= 1 || tensor.stride(-1) == 1;
  return is_unit ? tensor : tensor.contiguous();
}

at::Tensor total_loss(const at::Tensor& loss, double scale) {
  return loss.sum(at::kDouble).mul_(scale).to(loss.scalar_type());
}

int device_index(const at::Tensor& tensor) { return tensor.is_cpu() ? -1 : tensor.get_device(); }

BadLabel* bad_label_of(const at::Tensor& tensor) {
  if (!tensor.is_cuda()) return nullptr;
  const std::lock_guard<std::mutex> lock(flags_mutex);
  at::Tensor& flag = flags()[tensor.device().index()];
  if (!flag.defined()) flag = tensor.new_zeros({2}, at::kLong);
  return flag.mutable_data_ptr<int64_t>();
}

at::Tensor take_bad_label(at::Device device) {
  const std::lock_guard<std::mutex> lock(flags_mutex);
  const auto found = flags().find(device.index());
  if (!device.is_cuda() || found == flags().end()) {
    int64_t none[2] = {0, 0};
    return at::from_blob(none, {2}, at::kLong).clone();
  }
  at::Tensor taken = found->second.cpu();
  found->second.zero_();
  return taken;
}

}  // namespace bigft
