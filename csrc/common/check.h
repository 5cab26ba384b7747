// What every operator asks of its arguments. Messages name the argument, what it should be and what it is.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "rows.h"

namespace bigft {

// TypeError unless the tensor is of a floating-point dtype that the kernels know.
DType dtype_of(const at::Tensor& tensor, const char* name);

// What a dtype's losses are kept in: fp64 for fp64, else fp32.
at::ScalarType accumulated(at::ScalarType dtype);

// ValueError unless `tensor` has the shape; -1 is any size.
void check_shape(const at::Tensor& tensor, const char* name, at::IntArrayRef shape);

// ValueError unless both lie on one device.
void check_device(const at::Tensor& tensor, const char* name, const at::Tensor& beside, const char* beside_name);

// TypeError unless a weight or bias is of hidden_NH's dtype, or fp32 beside 16 bits; ValueError unless it
// lies on its device.
void check_beside_hidden(const at::Tensor& parameter, const char* name, const at::Tensor& hidden);

// labels_N as contiguous int64. On the CPU an IndexError if one is neither `ignore_index` nor in
// [0, num_classes); on CUDA the kernels meet it and write bad_label.
at::Tensor checked_labels(
    const at::Tensor& labels, const at::Tensor& beside, const char* beside_name, int64_t num_rows,
    int64_t num_classes, int64_t ignore_index);

// row_weight_N as contiguous fp32, or an undefined tensor.
at::Tensor checked_row_weight(
    const std::optional<at::Tensor>& row_weight, const at::Tensor& beside, const char* beside_name,
    int64_t num_rows);

// ValueError for an option out of its range.
LossOptions checked_options(int64_t ignore_index, double label_smoothing, double z_loss, double softcap);

// The last dimension with stride 1: the tensor itself or a copy.
at::Tensor with_unit_stride(const at::Tensor& tensor);

// scale times the sum of the rows' losses, which is formed in fp64.
at::Tensor total_loss(const at::Tensor& loss, double scale);

// The index of a tensor's CUDA device; -1 for the CPU.
int device_index(const at::Tensor& tensor);

// Where the device's kernels write a label out of range: int64[2], kept for the process's life. Null
// on the CPU.
BadLabel* bad_label_of(const at::Tensor& tensor);

// {1 + row, label} of a label out of range that a kernel met since the last call; {0, 0}: none.
at::Tensor take_bad_label(at::Device device);

}  // namespace bigft
