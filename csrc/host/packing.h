// Bin packing of sample lengths: which samples share a row of `capacity` tokens.
//
// Both ways pack consecutive windows of `window` samples, each for itself: a window bounds how far
// a sample moves from its place in the order. In a window the longest sample goes first (the
// earlier one of equals). What is written to `bins` is one bin number per sample; bins are numbered
// from 0, window after window, without gaps. Both throw std::invalid_argument naming the first
// sample whose length is not in [1, capacity].
#pragma once

#include <cstdint>

namespace bigft {

struct Samples {
  const std::int64_t* lengths;
  std::int64_t num_samples;
};

// Each sample into the first bin with room for it. O(N log window).
void pack_first_fit_decreasing(Samples samples, std::int64_t capacity, std::int64_t window,
                               std::int64_t* bins);

// Each sample into the bin before it if it fits, else into a new one: samples of like lengths share
// bins. O(N).
void pack_length_ordered(Samples samples, std::int64_t capacity, std::int64_t window,
                         std::int64_t* bins);

}  // namespace bigft
