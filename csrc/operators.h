// The operators as functions of tensors, for both devices: checks, allocation, then a device's kernels.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace bigft {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

namespace masked_cross_entropy {

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& logits, const Tensor& labels, const OptionalTensor& row_weight, int64_t ignore_index,
    double label_smoothing, double z_loss, double softcap, double scale, bool compute_grad);

std::tuple<Tensor, Tensor> forward_(
    Tensor& logits, const Tensor& labels, const OptionalTensor& row_weight, int64_t ignore_index,
    double label_smoothing, double z_loss, double softcap, double scale);

Tensor backward(
    const Tensor& grad_loss, const Tensor& logits, const Tensor& labels, const OptionalTensor& row_weight,
    const Tensor& lse, int64_t ignore_index, double label_smoothing, double z_loss, double softcap);

// x *= factor, early out where it is 1: what an upstream gradient does to gradients that are there.
void scale_(Tensor& x, const Tensor& factor);

}  // namespace masked_cross_entropy

namespace linear_cross_entropy {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& hidden, const Tensor& weight, const OptionalTensor& bias, const Tensor& labels,
    const OptionalTensor& target_rows, const OptionalTensor& row_weight, int64_t ignore_index,
    double label_smoothing, double z_loss, double softcap, double scale, int64_t workspace_bytes, bool lean,
    bool compute_predictions, bool compute_grad_hidden, bool compute_grad_weight, bool compute_grad_bias);

std::tuple<Tensor, Tensor, Tensor> backward(
    const Tensor& grad_loss, const Tensor& hidden, const Tensor& weight, const OptionalTensor& bias,
    const Tensor& labels, const OptionalTensor& target_rows, const OptionalTensor& row_weight,
    const Tensor& lse, int64_t ignore_index, double label_smoothing, double z_loss, double softcap,
    int64_t workspace_bytes, bool compute_grad_hidden, bool compute_grad_weight, bool compute_grad_bias);

}  // namespace linear_cross_entropy

namespace token_classification_head {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& hidden, const Tensor& weight, const OptionalTensor& bias, const Tensor& labels,
    const OptionalTensor& row_weight, const OptionalTensor& seed, double dropout_p, int64_t ignore_index,
    double label_smoothing, double z_loss, double softcap, double scale, bool compute_grad_hidden,
    bool compute_grad_weight, bool compute_grad_bias);

}  // namespace token_classification_head

}  // namespace bigft
