#include "products.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

namespace bigft::linear_cross_entropy {
namespace {

constexpr int64_t BLOCK_BYTES = 8 << 20;  // of the largest fp32 block: it stays in the last-level cache

// fp32 of a view that may be transposed: converting along the memory is several times faster.
at::Tensor widened(const at::Tensor& view, at::ScalarType rounded_to) {
  if (view.stride(0) == 1 && view.stride(1) != 1) return widened(view.t(), rounded_to).t();
  return view.to(rounded_to).to(at::kFloat);
}

// Cut along the largest of the three dimensions, so that one operand and the result of a block are small.
void product_by_blocks(at::Tensor out, const at::Tensor& a, const at::Tensor& b, bool accumulate) {
  const int64_t rows = a.size(0), inner = a.size(1), columns = b.size(1);
  const at::ScalarType dtype = a.scalar_type();
  const int64_t largest = std::max({rows, inner, columns});
  const int64_t other = std::max<int64_t>(1, largest == inner ? std::max(rows, columns) : inner);
  const int64_t step = std::max<int64_t>(64, BLOCK_BYTES / (4 * other));
  const auto put = [accumulate](at::Tensor into, const at::Tensor& block) {
    accumulate ? into.add_(block) : into.copy_(block);
  };
  if (largest == inner) {
    const bool in_place = out.scalar_type() == at::kFloat;
    at::Tensor sums = in_place ? out : out.new_zeros(out.sizes(), at::kFloat);
    if (in_place && !accumulate) sums.zero_();
    for (int64_t k = 0; k < inner; k += step) {
      const int64_t n = std::min(step, inner - k);
      sums.addmm_(widened(a.narrow(1, k, n), dtype), widened(b.narrow(0, k, n), dtype));
    }
    if (!in_place) put(out, sums);
  } else if (largest == rows) {
    const at::Tensor right = widened(b, dtype);
    for (int64_t row = 0; row < rows; row += step) {
      const int64_t n = std::min(step, rows - row);
      put(out.narrow(0, row, n), widened(a.narrow(0, row, n), dtype).mm(right));
    }
  } else {
    const at::Tensor left = widened(a, dtype);
    for (int64_t column = 0; column < columns; column += step) {
      const int64_t n = std::min(step, columns - column);
      put(out.narrow(1, column, n), left.mm(widened(b.narrow(1, column, n), dtype)));
    }
  }
}

}  // namespace

bool multiplies_by_blocks(const at::Tensor& matrix) {
  if (!matrix.is_cpu() || matrix.element_size() != 2) return false;
#if defined(__x86_64__)
  return matrix.scalar_type() != at::kBFloat16 || !__builtin_cpu_supports("avx512bf16");
#else
  return matrix.scalar_type() != at::kBFloat16;
#endif
}

void product(at::Tensor out, const at::Tensor& a, const at::Tensor& b, bool accumulate) {
  const bool widens = out.scalar_type() != a.scalar_type();
  if (multiplies_by_blocks(a) || (widens && a.is_cpu())) return product_by_blocks(out, a, b, accumulate);
  if (widens && accumulate) {
    at::addmm_out(out, out, a, b, out.scalar_type());
  } else if (widens) {
    at::mm_out(out, a, b, out.scalar_type());
  } else if (accumulate) {
    out.addmm_(a, b);
  } else {
    at::mm_out(out, a, b);
  }
}

}  // namespace bigft::linear_cross_entropy
