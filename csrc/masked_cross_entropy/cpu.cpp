#include <ATen/Parallel.h>

#include <vector>

#include "op.h"
#include "row.h"

namespace bigft::masked_cross_entropy::cpu {
namespace {

template <class T>
const T* at(const void* base, int64_t index, int64_t stride) {
  return static_cast<const T*>(base) + index * stride;
}

template <class T>
T* at(void* base, int64_t index, int64_t stride) {
  return static_cast<T*>(base) + index * stride;
}

template <class T>
struct LossRow {
  static BIGFT_INLINE void run(const CrossEntropyRows& rows, int64_t row) {
    using A = Acc<T>;
    const LossOptions& options = rows.options;
    const int64_t label = rows.labels[row];
    const T* x = at<T>(rows.logits, row, rows.logits_stride);
    const A softcap = static_cast<A>(options.softcap);
    const A target = capped(widen(x[label]), softcap);
    if (BIGFT_FAULT(read_one_row_too_far) && row + 1 < rows.num_rows) x += rows.logits_stride;
    const auto sums = row_sums(x, rows.num_classes, softcap, options.label_smoothing > 0);
    const bool weighs = rows.row_weight != nullptr && !BIGFT_FAULT(ignore_row_weight);
    const A weight = weighs ? rows.row_weight[row] : 1;
    *at<A>(rows.lse, row, 1) = sums.lse;
    *at<A>(rows.loss, row, 1) =
        weight * row_loss(sums, target, rows.num_classes, options);
    if (rows.gradient != nullptr) {
      row_gradient(x, at<T>(rows.gradient, row, rows.gradient_stride), rows.num_classes, label, sums,
                   static_cast<A>(rows.scale) * weight, rows.num_classes, options);
    }
  }
};

template <class T>
struct MaskedRow {
  static BIGFT_INLINE void run(const CrossEntropyRows& rows, int64_t row) {
    *at<Acc<T>>(rows.lse, row, 1) = 0;
    *at<Acc<T>>(rows.loss, row, 1) = 0;
    if (rows.gradient != nullptr) {
      zero_row(at<T>(rows.gradient, row, rows.gradient_stride), rows.num_classes);
    }
  }
};

template <class T>
struct StatisticsRow {
  static BIGFT_INLINE void run(const CrossEntropyTile& tile, int64_t row) {
    using A = Acc<T>;
    const T* x = at<T>(tile.logits, row, tile.logits_stride);
    const A softcap = static_cast<A>(tile.options.softcap);
    const int64_t label = tile.labels[row] - tile.first_class;
    const auto sums = row_sums(x, tile.num_classes, softcap, tile.options.label_smoothing > 0);
    const bool is_here = label >= 0 && label < tile.num_classes;
    *at<A>(tile.tile_lse, row, 1) = sums.lse;
    *at<A>(tile.tile_sum, row, 1) = sums.sum;
    *at<A>(tile.tile_target, row, 1) = is_here ? capped(widen(x[label]), softcap) : 0;
  }
};

template <class T>
struct MaskedStatisticsRow {
  static BIGFT_INLINE void run(const CrossEntropyTile& tile, int64_t row) {
    *at<Acc<T>>(tile.tile_lse, row, 1) = 0;
    *at<Acc<T>>(tile.tile_sum, row, 1) = 0;
    *at<Acc<T>>(tile.tile_target, row, 1) = 0;
  }
};

template <class T>
struct GradientRow {
  static BIGFT_INLINE void run(const CrossEntropyTile& tile, int64_t row) {
    using A = Acc<T>;
    row_gradient(at<T>(tile.logits, row, tile.logits_stride),
                 at<T>(tile.gradient, row, tile.gradient_stride), tile.num_classes,
                 tile.labels[row] - tile.first_class, sums_of_lse(*at<A>(tile.lse, row, 1)),
                 *at<A>(tile.upstream, row, 1), tile.num_classes_total, tile.options);
  }
};

template <class T>
struct MaskedGradientRow {
  static BIGFT_INLINE void run(const CrossEntropyTile& tile, int64_t row) {
    zero_row(at<T>(tile.gradient, row, tile.gradient_stride), tile.num_classes);
  }
};

// Rows with a target are shared out evenly among the threads, wherever they lie; so are the others.
template <class Live, class Masked, class Rows>
void each_row(const Rows& rows) {
  std::vector<int64_t> live, masked;
  for (int64_t row = 0; row < rows.num_rows; ++row) {
    const bool is_masked = rows.labels[row] == rows.options.ignore_index && !BIGFT_FAULT(skip_mask);
    (is_masked ? masked : live).push_back(row);
  }
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(rows.num_classes, 1));
  at::parallel_for(0, static_cast<int64_t>(live.size()), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) vectorised<Live>(rows, live[i]);
  });
  at::parallel_for(0, static_cast<int64_t>(masked.size()), grain * 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) vectorised<Masked>(rows, masked[i]);
  });
}

template <template <class> class Live, template <class> class Masked, class Rows>
void of_dtype(const Rows& rows) {
  switch (rows.dtype) {
    case DType::f64: return each_row<Live<double>, Masked<double>>(rows);
    case DType::f32: return each_row<Live<float>, Masked<float>>(rows);
    case DType::bf16: return each_row<Live<bf16>, Masked<bf16>>(rows);
    case DType::f16: return each_row<Live<f16>, Masked<f16>>(rows);
  }
}

}  // namespace

void loss(const CrossEntropyRows& rows) { of_dtype<LossRow, MaskedRow>(rows); }

void statistics_tile(const CrossEntropyTile& tile) {
  of_dtype<StatisticsRow, MaskedStatisticsRow>(tile);
}

void gradient_tile(const CrossEntropyTile& tile) {
  of_dtype<GradientRow, MaskedGradientRow>(tile);
}

}  // namespace bigft::masked_cross_entropy::cpu
