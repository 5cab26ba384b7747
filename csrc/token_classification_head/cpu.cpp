// The head on the CPU: blocks of rows with a target are widened, dropped, multiplied and turned into
// gradients while the cache holds them; the small products go to BLAS.
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <vector>

#include "../common/philox.h"
#include "../masked_cross_entropy/row.h"
#include "op.h"

namespace bigft::token_classification_head::cpu {
namespace {

using masked_cross_entropy::row_gradient;
using masked_cross_entropy::row_loss;
using masked_cross_entropy::row_sums;

constexpr int64_t BLOCK_BYTES = 256 << 10;  // of hidden, in what it is computed in: fits a second-level cache

// What one thread works in. A = fp32, or fp64 for fp64.
template <class A>
struct Block {
  std::vector<int64_t> row;  // the rows of the block, in ascending order
  at::Tensor hidden;         // [rows, H] after dropout
  at::Tensor kept;           // [rows, H]: what dropout multiplied by; undefined without dropout
  at::Tensor logits;         // [rows, C], then their gradient
  at::Tensor grad_hidden;    // [rows, H], or undefined
};

template <class T>
struct LoadRow {
  static BIGFT_INLINE void run(const TokenHeadRows& rows, int64_t row, Acc<T>* hidden, Acc<T>* kept) {
    using A = Acc<T>;
    const T* x = static_cast<const T*>(rows.hidden) + row * rows.hidden_stride;
    const int64_t size = rows.hidden_size;
    if (kept == nullptr) {
      for (int64_t h = 0; h < size; ++h) hidden[h] = widen(x[h]);
      return;
    }
    const int64_t groups = (size + 3) / 4, whole = size / 4;
    const uint64_t key = rows.seed[0], stream = rows.seed[1];
    const uint64_t first = static_cast<uint64_t>(row) * groups;
    const uint32_t threshold = dropout_threshold(rows.dropout_p);
    const A factor = static_cast<A>(1 / (1 - rows.dropout_p));
    for (int64_t group = 0; group < whole; ++group) {
      const Philox4 random = philox(key, first + group, stream);
      for (int i = 0; i < 4; ++i) kept[4 * group + i] = random.word[i] >= threshold ? factor : 0;
    }
    for (int64_t h = 4 * whole; h < size; ++h) {
      const Philox4 random = philox(key, first + whole, stream);
      kept[h] = random.word[h - 4 * whole] >= threshold ? factor : 0;
    }
    for (int64_t h = 0; h < size; ++h) hidden[h] = widen(x[h]) * kept[h];
  }
};

// Loss, lse and prediction of one row; its logits become their gradient.
template <class A>
struct LossRow {
  static BIGFT_INLINE void run(const TokenHeadRows& rows, int64_t row, A* logits) {
    const LossOptions& options = rows.options;
    const int64_t label = rows.labels[row], classes = rows.num_labels;
    const bool weighs = rows.row_weight != nullptr && !BIGFT_FAULT(ignore_row_weight);
    const A weight = weighs ? rows.row_weight[row] : 1;
    int64_t prediction = 0;
    for (int64_t c = 1; c < classes; ++c) {
      if (logits[c] > logits[prediction]) prediction = c;
    }
    const A softcap = static_cast<A>(options.softcap);
    const A target = masked_cross_entropy::capped(logits[label], softcap);
    const auto sums = row_sums(logits, classes, softcap, options.label_smoothing > 0);
    static_cast<A*>(rows.loss)[row] = weight * row_loss(sums, target, classes, options);
    static_cast<A*>(rows.lse)[row] = sums.lse;
    rows.predictions[row] = prediction;
    row_gradient(logits, logits, classes, label, sums, static_cast<A>(rows.scale) * weight, classes,
                 options);
  }
};

// Past the caches: the next to read it is the layer below, much later.
template <class T>
struct StoreRow {
  static BIGFT_INLINE void run(
      const TokenHeadRows& rows, int64_t row, const Acc<T>* gradient, const Acc<T>* kept) {
    constexpr int64_t PIECE = 512;
    alignas(64) T piece[PIECE];
    T* out = static_cast<T*>(rows.grad_hidden) + row * rows.hidden_size;
    const bool drops = kept != nullptr && !BIGFT_FAULT(dropout_forward_only);
    for (int64_t start = 0; start < rows.hidden_size; start += PIECE) {
      const int64_t n = std::min(PIECE, rows.hidden_size - start);
      if (drops) {
        for (int64_t i = 0; i < n; ++i) piece[i] = narrow<T>(gradient[start + i] * kept[start + i]);
      } else {
        for (int64_t i = 0; i < n; ++i) piece[i] = narrow<T>(gradient[start + i]);
      }
      stream(out + start, piece, n * sizeof(T));
    }
  }
};

template <class T>
void masked_row(const TokenHeadRows& rows, int64_t row) {
  static_cast<Acc<T>*>(rows.loss)[row] = 0;
  static_cast<Acc<T>*>(rows.lse)[row] = 0;
  rows.predictions[row] = -1;
  if (rows.grad_hidden == nullptr) return;
  masked_cross_entropy::zero_row(static_cast<T*>(rows.grad_hidden) + row * rows.hidden_size, rows.hidden_size);
}

template <class T>
struct Head {
  using A = Acc<T>;
  const TokenHeadRows& rows;
  at::ScalarType computed = std::is_same_v<A, double> ? at::kDouble : at::kFloat;
  at::TensorOptions options = at::TensorOptions().dtype(computed);
  at::Tensor weight_CH{}, bias_C{};

  void one_block(const Block<A>& block, at::Tensor& grad_weight, at::Tensor& grad_bias) const {
    const int64_t n = static_cast<int64_t>(block.row.size());
    const int64_t H = rows.hidden_size, C = rows.num_labels;
    A* hidden = block.hidden.template mutable_data_ptr<A>();
    A* kept = block.kept.defined() ? block.kept.template mutable_data_ptr<A>() : nullptr;
    const auto kept_of = [&](int64_t i) { return kept == nullptr ? nullptr : kept + i * H; };
    for (int64_t i = 0; i < n; ++i) {
      vectorised<LoadRow<T>>(rows, block.row[i], hidden + i * H, kept_of(i));
    }
    const at::Tensor hidden_nH = block.hidden.narrow(0, 0, n);
    at::Tensor logits_nC = block.logits.narrow(0, 0, n);
    if (bias_C.defined()) {
      at::addmm_out(logits_nC, bias_C, hidden_nH, weight_CH.t());
    } else {
      at::mm_out(logits_nC, hidden_nH, weight_CH.t());
    }
    A* logits = logits_nC.template mutable_data_ptr<A>();
    for (int64_t i = 0; i < n; ++i) vectorised<LossRow<A>>(rows, block.row[i], logits + i * C);
    if (grad_weight.defined()) grad_weight.addmm_(logits_nC.t(), hidden_nH);
    if (grad_bias.defined()) grad_bias.add_(logits_nC.sum(0));
    if (rows.grad_hidden == nullptr) return;
    at::Tensor grad_nH = block.grad_hidden.narrow(0, 0, n);
    at::mm_out(grad_nH, logits_nC, weight_CH);
    const A* gradient = grad_nH.template const_data_ptr<A>();
    for (int64_t i = 0; i < n; ++i) {
      vectorised<StoreRow<T>>(rows, block.row[i], gradient + i * H, kept_of(i));
    }
    stream_fence();
  }

  // The rows that partial sum `partial` covers.
  void one_partial(int64_t partial, Block<A>& block, int64_t block_rows) const {
    const int64_t H = rows.hidden_size, C = rows.num_labels;
    const int64_t length = (rows.num_rows + rows.num_partials - 1) / rows.num_partials;
    const int64_t first = partial * length, end = std::min(rows.num_rows, first + length);
    at::Tensor grad_weight, grad_bias;
    if (rows.partial_weight != nullptr) {
      grad_weight = at::from_blob(static_cast<A*>(rows.partial_weight) + partial * C * H, {C, H}, options);
      grad_weight.zero_();
    }
    if (rows.partial_bias != nullptr) {
      grad_bias = at::from_blob(static_cast<A*>(rows.partial_bias) + partial * C, {C}, options);
      grad_bias.zero_();
    }
    for (int64_t row = first; row < end; ++row) {
      if (rows.labels[row] == rows.options.ignore_index && !BIGFT_FAULT(skip_mask)) {
        masked_row<T>(rows, row);
        continue;
      }
      block.row.push_back(row);
      if (static_cast<int64_t>(block.row.size()) == block_rows) {
        one_block(block, grad_weight, grad_bias);
        block.row.clear();
      }
    }
    if (!block.row.empty()) one_block(block, grad_weight, grad_bias);
    block.row.clear();
  }

  void run() {
    const int64_t H = rows.hidden_size, C = rows.num_labels;
    const auto widened = [&](const void* data, at::IntArrayRef shape) {
      const at::ScalarType stored = rows.dtype == DType::bf16 ? at::kBFloat16 : computed;
      return at::from_blob(const_cast<void*>(data), shape, options.dtype(stored)).to(computed);
    };
    weight_CH = widened(rows.weight, {C, H});
    if (rows.bias != nullptr) bias_C = widened(rows.bias, {C});
    const int64_t block_rows =
        std::clamp<int64_t>(BLOCK_BYTES / (std::max<int64_t>(H, 1) * sizeof(A)), 16, 256);
    at::parallel_for(0, rows.num_partials, 1, [&](int64_t begin, int64_t end) {
      const at::AutoDispatchBelowADInplaceOrView no_autograd;  // each thread has its own switch
      Block<A> block;
      block.hidden = at::empty({block_rows, H}, options);
      block.logits = at::empty({block_rows, C}, options);
      if (rows.dropout_p > 0) block.kept = at::empty({block_rows, H}, options);
      if (rows.grad_hidden != nullptr) block.grad_hidden = at::empty({block_rows, H}, options);
      for (int64_t partial = begin; partial < end; ++partial) one_partial(partial, block, block_rows);
    });
  }
};

}  // namespace

void forward(const TokenHeadRows& rows) {
  switch (rows.dtype) {
    case DType::f64: return Head<double>{rows}.run();
    case DType::f32: return Head<float>{rows}.run();
    case DType::bf16: return Head<bf16>{rows}.run();
    case DType::f16: return;  // refused by the operator
  }
}

}  // namespace bigft::token_classification_head::cpu
