// Every operator that bigft adds to torch. What they compute: bigft/ops, which calls them.
//
// The one file that includes torch/library.h: it takes longer to compile than any file of kernels.
#include <torch/library.h>

#include "common/check.h"
#include "common/fault.h"
#include "common/isa.h"
#include "operators.h"

namespace bigft {
namespace {

std::string built_isa() { return isa_name(); }

#ifdef BIGFT_FAULTS
void plant_fault(std::string name) { planted_fault = std::move(name); }
#endif

void register_kernels(torch::Library& m) {
  m.impl("masked_cross_entropy", masked_cross_entropy::forward);
  m.impl("masked_cross_entropy_", masked_cross_entropy::forward_);
  m.impl("masked_cross_entropy_backward", masked_cross_entropy::backward);
  m.impl("linear_cross_entropy", linear_cross_entropy::forward);
  m.impl("linear_cross_entropy_backward", linear_cross_entropy::backward);
  m.impl("token_classification_head", token_classification_head::forward);
  m.impl("scale_", masked_cross_entropy::scale_);
}

}  // namespace

// clang-format off
TORCH_LIBRARY(bigft, m) {
  m.def("masked_cross_entropy(Tensor logits_NV, Tensor labels_N, Tensor? row_weight_N, int ignore_index, float label_smoothing, float z_loss, float softcap, float scale, bool compute_grad) -> (Tensor loss, Tensor loss_N, Tensor lse_N, Tensor grad_logits_NV)");
  m.def("masked_cross_entropy_(Tensor(a!) logits_NV, Tensor labels_N, Tensor? row_weight_N, int ignore_index, float label_smoothing, float z_loss, float softcap, float scale) -> (Tensor loss_N, Tensor lse_N)");
  m.def("masked_cross_entropy_backward(Tensor grad_loss_N, Tensor logits_NV, Tensor labels_N, Tensor? row_weight_N, Tensor lse_N, int ignore_index, float label_smoothing, float z_loss, float softcap) -> Tensor");
  m.def("linear_cross_entropy(Tensor hidden_NH, Tensor weight_VH, Tensor? bias_V, Tensor labels_N, Tensor? target_rows_M, Tensor? row_weight_N, int ignore_index, float label_smoothing, float z_loss, float softcap, float scale, int workspace_bytes, bool lean, bool predictions, bool compute_grad_hidden, bool compute_grad_weight, bool compute_grad_bias) -> (Tensor loss, Tensor loss_N, Tensor lse_N, Tensor predictions_N, Tensor grad_hidden_NH, Tensor grad_weight_VH, Tensor grad_bias_V)");
  m.def("linear_cross_entropy_backward(Tensor grad_loss_N, Tensor hidden_NH, Tensor weight_VH, Tensor? bias_V, Tensor labels_N, Tensor? target_rows_M, Tensor? row_weight_N, Tensor lse_N, int ignore_index, float label_smoothing, float z_loss, float softcap, int workspace_bytes, bool compute_grad_hidden, bool compute_grad_weight, bool compute_grad_bias) -> (Tensor grad_hidden_NH, Tensor grad_weight_VH, Tensor grad_bias_V)");
  m.def("token_classification_head(Tensor hidden_NH, Tensor weight_CH, Tensor? bias_C, Tensor labels_N, Tensor? row_weight_N, Tensor? seed, float dropout_p, int ignore_index, float label_smoothing, float z_loss, float softcap, float scale, bool compute_grad_hidden, bool compute_grad_weight, bool compute_grad_bias) -> (Tensor loss, Tensor loss_N, Tensor lse_N, Tensor predictions_N, Tensor grad_hidden_NH, Tensor grad_weight_CH, Tensor grad_bias_C)");
  m.def("scale_(Tensor(a!) x, Tensor factor) -> ()");
  m.def("take_bad_label(Device device) -> Tensor");
  m.def("built_isa() -> str", &built_isa);
#ifdef BIGFT_FAULTS
  m.def("plant_fault(str name) -> ()", &plant_fault);
#endif
}
// clang-format on

TORCH_LIBRARY_IMPL(bigft, CompositeExplicitAutograd, m) { m.impl("take_bad_label", take_bad_label); }
TORCH_LIBRARY_IMPL(bigft, CPU, m) { register_kernels(m); }
#ifdef BIGFT_CUDA
TORCH_LIBRARY_IMPL(bigft, CUDA, m) { register_kernels(m); }
#endif

}  // namespace bigft
