// The token-classification head in one kernel: hidden is read from memory once and its gradient
// written once, and masked rows are only written.
//
// A block owns the rows of one partial sum and takes them in windows of up to 32. The window's rows
// with a target stay in shared memory, dropped elements as zeros, and four steps go over them:
//   scores = rows * W'   (a warp: 8 rows by 4 classes, its lanes share H)
//   softmax, loss, prediction and the scores' gradient   (a warp per row)
//   grad_hidden = gradient * W   (a thread: 4 rows by one vector of H)
//   partial dW += gradient' * rows   (a thread: 4 classes by one vector of H; its own memory only)
// All in fp32 (fp64) on the ordinary cores: one path for every dtype, and enough for a few tens of
// classes. At 128 classes the products, not memory, are what the time goes to.
#include "kernels.h"

#include <algorithm>

#include "../common/launch.cuh"
#include "window.cuh"

namespace bigft::token_classification_head {
namespace {

// Blocks on a multiprocessor: bounds the registers to 128, which fp64 would exceed, and so would
// Blackwell's products of pairs.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
template <class T>
constexpr int BLOCKS = 1;
#else
template <class T>
constexpr int BLOCKS = sizeof(T) == 8 ? 1 : 2;
#endif
constexpr int WARPS = THREADS / WARP;
constexpr int MAX_CLASSES = 128;
constexpr int ROWS = 8;             // rows by CLASSES: one warp's scores, one to a lane at the end
constexpr int CLASSES = 4;
constexpr int GRAD_ROWS = 4;        // rows of a thread's grad_hidden
static_assert(ROWS * CLASSES == WARP && WIDTH<__half> <= 8);

// Products of the window's rows and the weight, without bias and dropout's factor.
template <class T>
__device__ __forceinline__ void score(
    const TokenHeadRows& head, const Layout& layout, const Shared<T>& shared, int num_targets) {
  using A = Acc<T>;
  const int row_groups = (num_targets + ROWS - 1) / ROWS;
  const int class_groups = layout.classes / CLASSES;
  for (int job = warp_index(); job < row_groups * class_groups; job += WARPS) {
    const int first_row = job % row_groups * ROWS, first_class = job / row_groups * CLASSES;
    A sums[WARP] = {};
    for (int v = lane_index(); v < layout.vectors; v += WARP) {
      A weight[CLASSES][WIDTH<T>];
#pragma unroll
      for (int c = 0; c < CLASSES; ++c) {  // beyond the last class the last again: never used
        const int64_t label = min(static_cast<int64_t>(first_class + c), head.num_labels - 1);
        widen<T>(load_vector<T>(at<T>(head.weight, label, head.hidden_size), v, head.hidden_size,
                                layout.is_aligned), weight[c]);
      }
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {  // likewise
        A x[WIDTH<T>];
        widen<T>(shared.rows[min(first_row + r, num_targets - 1) * layout.vectors + v], x);
#pragma unroll
        for (int c = 0; c < CLASSES; ++c) {
#pragma unroll
          for (int j = 0; j < WIDTH<T>; ++j) sums[r * CLASSES + c] += x[j] * weight[c][j];
        }
      }
    }
    const A sum = warp_sums(sums);
    const int row = first_row + lane_index() / CLASSES;
    if (row < num_targets) shared.scores[row * layout.classes + first_class + lane_index() % CLASSES] = sum;
  }
}

// Of two logits the one that a prediction takes: the larger, NaN above all, the lower class of equals.
template <class A>
__device__ __forceinline__ bool beats(A x, int class_of_x, A y, int class_of_y) {
  const bool same = x == y || (isnan(x) && isnan(y));
  return same ? class_of_x < class_of_y : isnan(x) || x > y;
}

template <class A>
__device__ __forceinline__ int warp_prediction(A best, int class_of_best) {
#pragma unroll
  for (int width = WARP / 2; width > 0; width /= 2) {
    const A other = __shfl_xor_sync(ALL_LANES, best, width);
    const int class_of_other = __shfl_xor_sync(ALL_LANES, class_of_best, width);
    if (beats(other, class_of_other, best, class_of_best)) {
      best = other;
      class_of_best = class_of_other;
    }
  }
  return class_of_best;
}

// From scores to their gradients, in place; writes the rows' loss, lse and prediction.
template <class T, bool CAPPED>
__device__ __forceinline__ void lose(
    const TokenHeadRows& head, const Layout& layout, const Shared<T>& shared, int num_targets, Acc<T> undropped) {
  using A = Acc<T>;
  const Softcap<A, CAPPED> cap(head.options);
  const int num_labels = static_cast<int>(head.num_labels);
  for (int r = warp_index(); r < num_targets; r += WARPS) {
    const int64_t row = shared.places[r];
    const int64_t label = head.labels[row];
    A* scores = shared.scores + r * layout.classes;
    A logits[MAX_CLASSES / WARP];
    A best = static_cast<A>(-INFINITY), target = 0;
    int class_of_best = MAX_CLASSES;
    Sums<A> sums;
#pragma unroll
    for (int i = 0; i < MAX_CLASSES / WARP; ++i) {
      const int c = i * WARP + lane_index();
      if (c >= num_labels) continue;
      logits[i] = undropped * scores[c];
      if (head.bias != nullptr) logits[i] += widen(*at<T>(head.bias, c, 1));
      if (beats(logits[i], c, best, class_of_best)) {
        best = logits[i];
        class_of_best = c;
      }
      const A capped[1] = {cap(logits[i])};
      sums.template add<A>(capped);
      if (c == label) target = capped[0];
    }
    sums = combined<A>(sums);
    target = __shfl_sync(ALL_LANES, target, static_cast<int>(label % WARP));
    const int prediction = warp_prediction(best, class_of_best);
    const RowLoss<A> of_row(sums, target, num_labels, head.options);
    const A weight = head.row_weight == nullptr ? A(1) : static_cast<A>(head.row_weight[row]);
    if (lane_index() == 0) {
      *at<A>(head.loss, row, 1) = weight * of_row.loss;
      *at<A>(head.lse, row, 1) = of_row.lse;
      head.predictions[row] = prediction;
    }
    const RowGradient<A, CAPPED> formula(shift_of(sums.highest), sums.exponentials, of_row.lse,
                                         static_cast<A>(head.scale) * weight, num_labels, head.options);
#pragma unroll
    for (int i = 0; i < MAX_CLASSES / WARP; ++i) {
      const int c = i * WARP + lane_index();
      if (c < num_labels) {
        scores[c] = c == label ? formula.of_label(logits[i]) : formula.of_other(logits[i]);
      } else if (c < layout.classes) {
        scores[c] = 0;
      }
    }
  }
}

template <class T>
__device__ __forceinline__ void write_grad_hidden(
    const TokenHeadRows& head, const Layout& layout, const Shared<T>& shared, int num_targets, Acc<T> undropped) {
  using A = Acc<T>;
  const int row_groups = (num_targets + GRAD_ROWS - 1) / GRAD_ROWS;
  for (int i = static_cast<int>(threadIdx.x); i < row_groups * layout.vectors; i += THREADS) {
    const int v = i % layout.vectors, first_row = i / layout.vectors * GRAD_ROWS;
    A sums[GRAD_ROWS][WIDTH<T>] = {};
    for (int c = 0; c < head.num_labels; ++c) {
      A weight[WIDTH<T>];
      widen<T>(load_vector<T>(at<T>(head.weight, c, head.hidden_size), v, head.hidden_size, layout.is_aligned),
               weight);
#pragma unroll
      for (int r = 0; r < GRAD_ROWS; ++r) {  // beyond the last row the last again: not stored
        const A gradient = shared.scores[min(first_row + r, num_targets - 1) * layout.classes + c];
#pragma unroll
        for (int j = 0; j < WIDTH<T>; ++j) sums[r][j] += gradient * weight[j];
      }
    }
#pragma unroll
    for (int r = 0; r < GRAD_ROWS; ++r) {
      const int row = first_row + r;
      if (row >= num_targets) break;
      const unsigned bits = head.dropout_p > 0 ? shared.kept[row * layout.vectors + v] : ~0u;
#pragma unroll
      for (int j = 0; j < WIDTH<T>; ++j) sums[r][j] = (bits >> j & 1) ? undropped * sums[r][j] : A(0);
      store_vector<T>(at<T>(head.grad_hidden, shared.places[row], head.hidden_size), v, head.hidden_size,
                      layout.is_aligned, narrow<T>(sums[r]));
    }
  }
}

// Adds the window to the block's partial sum, or begins it. An element belongs to one thread, in every
// window the same: neither atomics nor barriers.
template <class T>
__device__ __forceinline__ void add_grad_weight(
    const TokenHeadRows& head, const Layout& layout, const Shared<T>& shared, int num_targets, Acc<T> undropped,
    bool begins) {
  using A = Acc<T>;
  constexpr int PARTS = sizeof(A) / sizeof(T);  // vectors of sums to a vector of T
  const int class_groups = layout.classes / CLASSES;
  for (int i = static_cast<int>(threadIdx.x); i < class_groups * layout.vectors; i += THREADS) {
    const int v = i % layout.vectors, first_class = i / layout.vectors * CLASSES;
    A sums[CLASSES][WIDTH<T>] = {};
    for (int r = 0; r < num_targets; ++r) {
      A x[WIDTH<T>];
      widen<T>(shared.rows[r * layout.vectors + v], x);
#pragma unroll
      for (int c = 0; c < CLASSES; ++c) {
        const A gradient = shared.scores[r * layout.classes + first_class + c];
#pragma unroll
        for (int j = 0; j < WIDTH<T>; ++j) sums[c][j] += gradient * x[j];
      }
    }
#pragma unroll
    for (int c = 0; c < CLASSES; ++c) {
      const int64_t label = first_class + c;
      if (label >= head.num_labels) break;
      A* out = at<A>(head.partial_weight, blockIdx.x * head.num_labels + label, head.hidden_size);
#pragma unroll
      for (int part = 0; part < PARTS; ++part) {
        const int of_sums = v * PARTS + part;
        if (int64_t{of_sums} * WIDTH<A> >= head.hidden_size) break;
        A values[WIDTH<A>] = {};
        if (!begins) widen<A>(load_vector<A>(out, of_sums, head.hidden_size, layout.is_aligned), values);
#pragma unroll
        for (int j = 0; j < WIDTH<A>; ++j) values[j] += undropped * sums[c][part * WIDTH<A> + j];
        store_vector<A>(out, of_sums, head.hidden_size, layout.is_aligned, narrow<A>(values));
      }
    }
  }
}

template <class T>
__global__ void __launch_bounds__(THREADS, BLOCKS<T>)
    token_classification_head_forward_kernel(const TokenHeadRows head, const Layout layout) {
  using A = Acc<T>;
  const Shared<T> shared(layout);
  const A undropped = static_cast<A>(1 / (1 - head.dropout_p));
  const int64_t block_rows = (head.num_rows + head.num_partials - 1) / head.num_partials;
  const int64_t begin = min(head.num_rows, block_rows * blockIdx.x);
  const int64_t end = min(head.num_rows, begin + block_rows);
  const int64_t bias_class = threadIdx.x;
  A grad_bias = 0;
  bool is_begun = false;
  for (int64_t first = begin; first < end; first += layout.window) {
    const int num_rows = static_cast<int>(min(static_cast<int64_t>(layout.window), end - first));
    const unsigned targets = targets_of<T>(head, first, num_rows, shared.places);
    if (head.grad_hidden != nullptr) clear_masked<T>(head, layout, first, num_rows, targets);
    const int num_targets = __popc(targets);
    if (num_targets == 0) continue;
    __syncthreads();  // places would be read before they are written
    load_rows<T>(head, layout, shared, num_targets);
    __syncthreads();  // rows would be read before they are written
    score<T>(head, layout, shared, num_targets);
    __syncthreads();  // scores would be read before they are written
    if (head.options.softcap > 0) {
      lose<T, true>(head, layout, shared, num_targets, undropped);
    } else {
      lose<T, false>(head, layout, shared, num_targets, undropped);
    }
    __syncthreads();  // scores would be read before they are gradients
    if (head.grad_hidden != nullptr) write_grad_hidden<T>(head, layout, shared, num_targets, undropped);
    if (head.partial_weight != nullptr) {
      add_grad_weight<T>(head, layout, shared, num_targets, undropped, !is_begun);
    }
    is_begun = true;
    if (bias_class < head.num_labels) {
      for (int r = 0; r < num_targets; ++r) grad_bias += shared.scores[r * layout.classes + bias_class];
    }
    __syncthreads();  // places, rows and scores, still being read, would be overwritten
  }
  if (head.partial_bias != nullptr && bias_class < head.num_labels) {
    at<A>(head.partial_bias, blockIdx.x, head.num_labels)[bias_class] = grad_bias;
  }
  if (head.partial_weight != nullptr && !is_begun) {
    A* out = at<A>(head.partial_weight, blockIdx.x, head.num_labels * head.hidden_size);
    for (int64_t i = threadIdx.x; i < head.num_labels * head.hidden_size; i += THREADS) out[i] = 0;
  }
}

bool is_vector_aligned(const void* pointer) { return (reinterpret_cast<uintptr_t>(pointer) & 15) == 0; }

// As many rows as leave room for a second block, which reads while the first computes. Where those are
// few, one block with more: the sums of the weight's gradient go to memory once a window.
int window_of(const Layout& layout, int64_t acc_bytes) {
  const int64_t limit = shared_memory_limit() - Layout::PLACES_BYTES;
  const auto fitting = [&](int64_t bytes) {
    const int64_t rows = std::min<int64_t>(MAX_WINDOW, bytes / layout.row_bytes(acc_bytes));
    return rows > ROWS ? rows / ROWS * ROWS : rows;
  };
  const int64_t of_two = fitting(limit / 2);
  const int64_t window = of_two >= 2 * ROWS ? of_two : fitting(limit);
  if (window == 0) {
    throw CudaError("token_classification_head: a row of hidden needs " +
                    std::to_string(layout.row_bytes(acc_bytes)) + " bytes of shared memory, and this device has " +
                    std::to_string(limit));
  }
  return static_cast<int>(window);
}

}  // namespace

void launch_forward(const TokenHeadRows& head, cudaStream_t stream) {
  if (head.num_partials == 0) return;
  of_dtype(head.dtype, [&](auto element) {
    using T = decltype(element);
    Layout layout{};
    layout.vectors = static_cast<int>(ceil_div(head.hidden_size, WIDTH<T>));
    layout.classes = static_cast<int>(ceil_div(head.num_labels, CLASSES) * CLASSES);
    layout.is_aligned = head.hidden_size % WIDTH<T> == 0 && head.hidden_stride % WIDTH<T> == 0 &&
                        is_vector_aligned(head.hidden) && is_vector_aligned(head.weight) &&
                        is_vector_aligned(head.grad_hidden) && is_vector_aligned(head.partial_weight);
    layout.window = window_of(layout, sizeof(Acc<T>));
    launch(token_classification_head_forward_kernel<T>,
           {.blocks = head.num_partials, .threads = THREADS, .shared_bytes = layout.bytes(sizeof(Acc<T>))}, stream,
           head, layout);
  });
}

}  // namespace bigft::token_classification_head
