#include "packing.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

namespace bigft {
namespace {

// Room left per bin, as the leaves of a tree whose inner nodes hold the maximum of their children,
// so that the first bin with enough room is found by one descent.
class Room {
 public:
  explicit Room(std::int64_t max_bins) {
    while (num_leaves_ < max_bins) num_leaves_ *= 2;
    most_.resize(2 * num_leaves_);
  }

  void empty_all(std::int64_t capacity) { std::fill(most_.begin(), most_.end(), capacity); }

  // There always is one: a window has as many bins as samples, and every sample fits an empty bin.
  std::int64_t first_with(std::int64_t length) const {
    std::int64_t node = 1;
    while (node < num_leaves_) {
      node *= 2;
      if (most_[node] < length) ++node;
    }
    return node - num_leaves_;
  }

  void take(std::int64_t bin, std::int64_t length) {
    std::int64_t node = num_leaves_ + bin;
    most_[node] -= length;
    while (node > 1) {
      node /= 2;
      most_[node] = std::max(most_[2 * node], most_[2 * node + 1]);
    }
  }

 private:
  std::int64_t num_leaves_ = 1;
  std::vector<std::int64_t> most_;
};

void check(const std::int64_t* lengths, std::int64_t num_samples, std::int64_t capacity,
           std::int64_t window) {
  const std::string name = "pack_first_fit_decreasing: ";
  if (window < 1) {
    throw std::invalid_argument(name + "window: expected at least 1, found " +
                                std::to_string(window));
  }
  for (std::int64_t i = 0; i < num_samples; ++i) {
    if (lengths[i] < 1 || lengths[i] > capacity) {
      throw std::invalid_argument(name + "lengths[" + std::to_string(i) +
                                  "]: expected 1 up to the capacity, " + std::to_string(capacity) +
                                  ", found " + std::to_string(lengths[i]));
    }
  }
}

}  // namespace

std::vector<std::int64_t> pack_first_fit_decreasing(const std::int64_t* lengths,
                                                    std::int64_t num_samples,
                                                    std::int64_t capacity, std::int64_t window) {
  check(lengths, num_samples, capacity, window);
  window = std::min(window, num_samples);
  std::vector<std::int64_t> bins(num_samples);
  std::vector<std::int64_t> order(num_samples);
  std::iota(order.begin(), order.end(), 0);
  Room room(window);
  std::int64_t num_bins = 0;  // of the windows before
  for (std::int64_t first = 0; first < num_samples; first += window) {
    const std::int64_t last = std::min(first + window, num_samples);
    std::stable_sort(order.begin() + first, order.begin() + last,
                     [&](std::int64_t a, std::int64_t b) { return lengths[a] > lengths[b]; });
    room.empty_all(capacity);
    std::int64_t opened = 0;
    for (std::int64_t k = first; k < last; ++k) {
      const std::int64_t sample = order[k];
      const std::int64_t bin = room.first_with(lengths[sample]);
      room.take(bin, lengths[sample]);
      bins[sample] = num_bins + bin;
      opened = std::max(opened, bin + 1);
    }
    num_bins += opened;
  }
  return bins;
}

}  // namespace bigft
