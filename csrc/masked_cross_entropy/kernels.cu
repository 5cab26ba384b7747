// Cross-entropy over rows of logits, bound by memory: a row is read from memory once, its gradient
// written once, and a masked row only written.
//
// A row's loss and gradient need two visits with a sum over the row between them. The block keeps the
// first visit's vectors in shared memory for the second; a row too large for one block is shared by a
// cluster of them (sm_90 and newer), and what still does not fit is read again, from L2 if all is well.
// A thread takes from shared memory only what it put there itself, so that no barrier guards it.
#include "kernels.h"

#include <algorithm>
#include <limits>

#include "../common/cross_entropy.cuh"
#include "../common/launch.cuh"
#include "../common/vectors.cuh"

namespace bigft::masked_cross_entropy {
namespace {

constexpr int MAX_THREADS = 512;
constexpr int AHEAD = 4;        // loads that a thread has under way
constexpr int VECTORS = 8;      // of a row for each thread, up to MAX_THREADS
constexpr int MAX_CLUSTER = 8;  // what every device with clusters can do
// Blocks of MAX_THREADS on a multiprocessor: bounds the registers to 64, which fp64 would exceed.
template <class T>
constexpr int BLOCKS_OF_MAX = sizeof(T) == 8 ? 1 : 2;
// A block's share of a row, where clusters can be formed: small enough for several blocks on one
// multiprocessor, of which some read while others write.
constexpr int64_t SHARE_BYTES = 32 * 1024;
// One block's sums per warp and the block's own, ahead of the cached vectors.
constexpr int BLOCK_SUMS = MAX_THREADS / WARP;
constexpr int64_t SCRATCH_BYTES = 512;
static_assert((BLOCK_SUMS + 1) * sizeof(Sums<double>) <= SCRATCH_BYTES);

template <class A>
__device__ __forceinline__ Sums<A>* scratch() {
  return reinterpret_cast<Sums<A>*>(shared_memory());
}

// The sums of all threads of the block; every thread gets the same bits.
template <class T, class A>
__device__ __forceinline__ Sums<A> block_combined(Sums<A> sums) {
  sums = combined<T>(sums);
  __syncthreads();  // the sums of the previous row, still being read, would be overwritten
  if (lane_index() == 0) scratch<A>()[warp_index()] = sums;
  __syncthreads();  // a warp's sums would be read before they are written
  return combined<T>(lane_index() < num_warps() ? scratch<A>()[lane_index()] : Sums<A>{});
}

// Of all blocks of the cluster. The caller must Cluster::wait() before it comes back or returns: other
// blocks may still read this block's sums.
template <class T, class A>
__device__ __forceinline__ Sums<A> cluster_combined(const Sums<A>& of_block) {
  Sums<A>* mine = scratch<A>() + BLOCK_SUMS;
  if (threadIdx.x == 0) *mine = of_block;
  Cluster::sync();  // another block's sums would be read before they are written, or it has begun
  const Sums<A> all =
      combined<T>(lane_index() < Cluster::size() ? *Cluster::theirs(mine, lane_index()) : Sums<A>{});
  Cluster::arrive();
  return all;
}

// The sums of a thread's part of a row, of which the first `cached` vectors of the block's share stay
// in `cache`.
template <class T, bool CAPPED>
__device__ __forceinline__ Sums<Acc<T>> read_row(
    const T* x, const Run<T>& run, const Share& share, const Softcap<Acc<T>, CAPPED>& cap, uint4* cache,
    int cached) {
  using A = Acc<T>;
  Sums<A> sums;
  const uint4* vectors = reinterpret_cast<const uint4*>(x + run.head) + share.first;
  each_vector<AHEAD>(
      share.size, [&](int i) { return vectors[i]; },
      [&](int i, const uint4& vector) {
        if (i < cached) cache[i] = vector;
        A logits[WIDTH<T>];
        widen<T>(vector, logits);
#pragma unroll
        for (int j = 0; j < WIDTH<T>; ++j) logits[j] = cap(logits[j]);
        sums.template add<T>(logits);
      });
  if (Cluster::rank() == 0 && run.has_loose()) {
    const A logit[1] = {cap(widen(x[run.of_loose(threadIdx.x)]))};
    sums.template add<T>(logit);
  }
  return sums;
}

// Writes a row's gradient, at the label `of_label`; may write over the row. The label may lie elsewhere.
template <class T, bool CAPPED>
__device__ __forceinline__ void write_gradient(
    const T* x, T* gradient, const Run<T>& run, const Share& share, int label,
    Acc<T> of_label, const RowGradient<T, CAPPED>& formula, const uint4* cache, int cached) {
  using A = Acc<T>;
  const int first = run.head + share.first * WIDTH<T>;
  const uint4* vectors = reinterpret_cast<const uint4*>(x + first);
  const bool in_step = same_phase(x, gradient);
  if (Cluster::rank() == 0 && run.has_loose()) {
    const int i = run.of_loose(threadIdx.x);
    gradient[i] = narrow<T>(i == label ? of_label : formula.of_other(widen(x[i])));
  }
  // The thread whose vector holds the label writes that element once more, after the vector.
  const int at_label = label - first;
  const bool owns_label = at_label >= 0 && at_label < share.size * WIDTH<T> &&
                          static_cast<unsigned>(at_label / WIDTH<T>) % blockDim.x == threadIdx.x;
  T* labels_place = owns_label ? gradient + label : nullptr;
  gradient += first;
  each_vector<AHEAD>(
      share.size, [&](int i) { return i < cached ? cache[i] : vectors[i]; },
      [&](int i, const uint4& vector) {
        A values[WIDTH<T>];
        widen<T>(vector, values);
#pragma unroll
        for (int j = 0; j < WIDTH<T>; ++j) values[j] = formula.of_other(values[j]);
        T* out = gradient + i * WIDTH<T>;
        if (in_step) {
          *reinterpret_cast<uint4*>(out) = narrow<T>(values);
        } else {  // views whose rows begin at different places between 16-byte boundaries
#pragma unroll
          for (int j = 0; j < WIDTH<T>; ++j) out[j] = narrow<T>(values[j]);
        }
      });
  if (labels_place != nullptr) *labels_place = narrow<T>(of_label);
}

// A cluster (or a block) per row.
template <class T, bool CAPPED>
__global__ void __launch_bounds__(MAX_THREADS, BLOCKS_OF_MAX<T>)
    masked_cross_entropy_loss_kernel(const CrossEntropyRows rows, const int cached) {
  using A = Acc<T>;
  const LossOptions& options = rows.options;
  const Softcap<A, CAPPED> cap(options);
  uint4* cache = reinterpret_cast<uint4*>(shared_memory() + SCRATCH_BYTES);
  const bool leads = Cluster::rank() == 0 && threadIdx.x == 0;
  for (int64_t row = blockIdx.x / Cluster::size(); row < rows.num_rows; row += gridDim.x / Cluster::size()) {
    const int64_t label = rows.labels[row];
    const T* x = at<T>(rows.logits, row, rows.logits_stride);
    T* gradient = at<T>(rows.gradient, row, rows.gradient_stride);
    const bool is_bad = is_bad_label(label, rows.num_classes, options.ignore_index);
    if (is_bad || label == options.ignore_index) {  // before anything of the row is read
      if (leads) {
        if (is_bad) report_bad_label(rows.bad_label, row, label);
        *at<A>(rows.loss, row, 1) = is_bad ? static_cast<A>(NAN) : A(0);
        *at<A>(rows.lse, row, 1) = is_bad ? static_cast<A>(NAN) : A(0);
      }
      if (rows.gradient != nullptr) fill_zero(gradient, rows.num_classes);
      continue;
    }
    const Run<T> run(x, rows.num_classes);
    const Share share(run.vectors);
    // Read by all ahead of the barriers: a gradient in place of the logits comes after them.
    const A target = widen(x[label]);
    Sums<A> sums = block_combined<T>(read_row<T, CAPPED>(x, run, share, cap, cache, cached));
    if (Cluster::size() > 1) sums = cluster_combined<T>(sums);
    const RowLoss<A> of_row(sums, cap(target), rows.num_classes, options);
    const A weight = rows.row_weight == nullptr ? A(1) : static_cast<A>(rows.row_weight[row]);
    if (leads) {
      *at<A>(rows.loss, row, 1) = weight * of_row.loss;
      *at<A>(rows.lse, row, 1) = of_row.lse;
    }
    if (rows.gradient != nullptr) {
      const RowGradient<T, CAPPED> formula(shift_of(sums.highest), sums.exponentials, of_row.lse,
                                           static_cast<A>(rows.scale) * weight, rows.num_classes, options);
      write_gradient(x, gradient, run, share, static_cast<int>(label), formula.of_label(target), formula, cache,
                     cached);
    }
    if (Cluster::size() > 1) Cluster::wait();
  }
}

// A block per row of the tile.
template <class T, bool CAPPED>
__global__ void __launch_bounds__(MAX_THREADS, BLOCKS_OF_MAX<T>)
    masked_cross_entropy_statistics_tile_kernel(const CrossEntropyTile tile) {
  using A = Acc<T>;
  const Softcap<A, CAPPED> cap(tile.options);
  for (int64_t row = blockIdx.x; row < tile.num_rows; row += gridDim.x) {
    const int64_t label = tile.labels[row];
    const bool is_bad = is_bad_label(label, tile.num_classes_total, tile.options.ignore_index);
    const bool is_masked = is_bad || label == tile.options.ignore_index;
    const A instead = is_bad ? static_cast<A>(NAN) : A(0);
    A lse = instead, total = instead, target = instead;
    if (!is_masked) {
      const T* x = at<T>(tile.logits, row, tile.logits_stride);
      const Run<T> run(x, tile.num_classes);
      const Sums<A> sums = block_combined<T>(
          read_row<T, CAPPED>(x, run, Share(run.vectors), cap, nullptr, 0));
      lse = shift_of(sums.highest) + log(sums.exponentials);
      total = sums.total;
      const int64_t local = label - tile.first_class;
      const bool is_here = local >= 0 && local < tile.num_classes;
      target = threadIdx.x == 0 && is_here ? cap(widen(x[local])) : A(0);
    }
    if (threadIdx.x == 0) {
      if (is_bad) report_bad_label(tile.bad_label, row, label);
      *at<A>(tile.tile_lse, row, 1) = lse;
      *at<A>(tile.tile_sum, row, 1) = total;
      *at<A>(tile.tile_target, row, 1) = target;
    }
  }
}

// A block per row of the tile.
template <class T, bool CAPPED>
__global__ void __launch_bounds__(MAX_THREADS, BLOCKS_OF_MAX<T>)
    masked_cross_entropy_gradient_tile_kernel(const CrossEntropyTile tile) {
  using A = Acc<T>;
  for (int64_t row = blockIdx.x; row < tile.num_rows; row += gridDim.x) {
    const int64_t label = tile.labels[row];
    T* gradient = at<T>(tile.gradient, row, tile.gradient_stride);
    const bool is_bad = is_bad_label(label, tile.num_classes_total, tile.options.ignore_index);
    if (is_bad && threadIdx.x == 0) report_bad_label(tile.bad_label, row, label);
    if (is_bad || label == tile.options.ignore_index) {
      fill_zero(gradient, tile.num_classes);
      continue;
    }
    const T* x = at<T>(tile.logits, row, tile.logits_stride);
    const Run<T> run(x, tile.num_classes);
    const A lse = *at<A>(tile.lse, row, 1);
    const RowGradient<T, CAPPED> formula(lse, A(1), lse, *at<A>(tile.upstream, row, 1),
                                         tile.num_classes_total, tile.options);
    const int64_t local = label - tile.first_class;
    const bool is_here = local >= 0 && local < tile.num_classes;
    const A of_label = is_here ? formula.of_label(widen(x[local])) : A(0);
    __syncthreads();  // one thread would overwrite the label's logit while others read it
    write_gradient(x, gradient, run, Share(run.vectors), is_here ? static_cast<int>(local) : -1, of_label, formula,
                   nullptr, 0);
  }
}

template <class T>
__global__ void __launch_bounds__(MAX_THREADS, BLOCKS_OF_MAX<T>)
    scale_kernel(T* x, const int64_t numel, const void* factor_pointer, const bool factor_is_double) {
  using A = Acc<T>;
  const A factor = factor_is_double ? static_cast<A>(*static_cast<const double*>(factor_pointer))
                                    : static_cast<A>(*static_cast<const float*>(factor_pointer));
  if (factor == 1) return;
  const Run<T, int64_t> run(x, numel);
  uint4* vectors = reinterpret_cast<uint4*>(x + run.head);
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < run.vectors; i += step) {
    A values[WIDTH<T>];
    widen<T>(vectors[i], values);
#pragma unroll
    for (int j = 0; j < WIDTH<T>; ++j) values[j] *= factor;
    vectors[i] = narrow<T>(values);
  }
  if (blockIdx.x == 0 && run.has_loose()) {
    T& loose = x[run.of_loose(threadIdx.x)];
    loose = narrow<T>(widen(loose) * factor);
  }
}

// Enough threads to have a share of a row under way at once, up to a block's most.
int threads_for(int64_t vectors) {
  return static_cast<int>(std::clamp<int64_t>(ceil_div(ceil_div(vectors, VECTORS), WARP), 1, MAX_THREADS / WARP)) *
         WARP;
}

template <class Kernel, class Rows, class... More>
void launch_rows(Kernel kernel, const Rows& rows, cudaStream_t stream, LaunchShape shape, More... more) {
  if (rows.num_classes > std::numeric_limits<int>::max()) {
    throw CudaError("masked_cross_entropy: " + std::to_string(rows.num_classes) + " classes are more than 2^31 - 1");
  }
  shape.blocks = std::min(rows.num_rows, MAX_BLOCKS / shape.cluster) * shape.cluster;
  shape.shared_bytes += SCRATCH_BYTES;
  launch(kernel, shape, stream, rows, more...);
}

}  // namespace

void launch_loss(const CrossEntropyRows& rows, cudaStream_t stream) {
  if (rows.num_rows == 0) return;
  of_dtype(rows.dtype, [&](auto element) {
    using T = decltype(element);
    const auto kernel = rows.options.softcap > 0 ? masked_cross_entropy_loss_kernel<T, true>
                                                 : masked_cross_entropy_loss_kernel<T, false>;
    const int64_t vectors = ceil_div(rows.num_classes, WIDTH<T>);
    LaunchShape shape{};
    shape.cluster = 1;
    if (has_clusters(kernel)) {
      const auto share_bytes = [&] { return ceil_div(vectors, shape.cluster) * int64_t{16}; };
      while (shape.cluster < MAX_CLUSTER && share_bytes() > SHARE_BYTES) shape.cluster *= 2;
    }
    const int64_t share = ceil_div(vectors, shape.cluster);
    const int64_t room = (shared_memory_limit() - SCRATCH_BYTES) / 16;
    const int cached = rows.gradient == nullptr ? 0 : static_cast<int>(std::min(share, room));
    shape.threads = threads_for(share);
    shape.shared_bytes = int64_t{16} * cached;
    launch_rows(kernel, rows, stream, shape, cached);
  });
}

void launch_statistics_tile(const CrossEntropyTile& tile, cudaStream_t stream) {
  if (tile.num_rows == 0) return;
  of_dtype(tile.dtype, [&](auto element) {
    using T = decltype(element);
    const auto kernel = tile.options.softcap > 0 ? masked_cross_entropy_statistics_tile_kernel<T, true>
                                                 : masked_cross_entropy_statistics_tile_kernel<T, false>;
    launch_rows(kernel, tile, stream, {.blocks = 0, .threads = threads_for(ceil_div(tile.num_classes, WIDTH<T>))});
  });
}

void launch_gradient_tile(const CrossEntropyTile& tile, cudaStream_t stream) {
  if (tile.num_rows == 0) return;
  of_dtype(tile.dtype, [&](auto element) {
    using T = decltype(element);
    const auto kernel = tile.options.softcap > 0 ? masked_cross_entropy_gradient_tile_kernel<T, true>
                                                 : masked_cross_entropy_gradient_tile_kernel<T, false>;
    launch_rows(kernel, tile, stream, {.blocks = 0, .threads = threads_for(ceil_div(tile.num_classes, WIDTH<T>))});
  });
}

void launch_scale(
    void* x, DType dtype, int64_t numel, const void* factor, bool factor_is_double, cudaStream_t stream) {
  if (numel == 0) return;
  // A few rounds per block: many threads without work would cost more than the early exit saves.
  const int64_t most = 8 * static_cast<int64_t>(device_attribute(cudaDevAttrMultiProcessorCount));
  of_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    const int64_t blocks = std::min(most, ceil_div(ceil_div(numel, WIDTH<T>), MAX_THREADS));
    launch(scale_kernel<T>, {.blocks = blocks, .threads = MAX_THREADS}, stream, static_cast<T*>(x), numel, factor,
           factor_is_double);
  });
}

}  // namespace bigft::masked_cross_entropy
