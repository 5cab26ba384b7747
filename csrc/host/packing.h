// Bin packing of sample lengths: which samples share a row of `capacity` tokens.
#pragma once

#include <cstdint>
#include <vector>

namespace bigft {

// First-fit-decreasing within consecutive windows of `window` samples: in each window the longest
// sample goes first (the earlier one of equals), each into the first bin with room for it.
// Returns one bin number per sample; bins are numbered from 0, window after window, without gaps.
// O(N log window). A window bounds how far a sample moves from its place in the order.
// Throws std::invalid_argument naming the first sample whose length is not in [1, capacity].
std::vector<std::int64_t> pack_first_fit_decreasing(const std::int64_t* lengths,
                                                    std::int64_t num_samples,
                                                    std::int64_t capacity, std::int64_t window);

}  // namespace bigft
