#include "packing.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bigft {
namespace {

struct Sample {
  std::int64_t length, index;
};

// The samples of a window by falling length, stably. A radix sort, byte by byte of what a sample
// lacks to the capacity: comparisons would take longer than the packing. Throws for a length that
// is not in [1, capacity].
class LongestFirst {
 public:
  LongestFirst(std::string name, Samples samples, std::int64_t capacity)
      : name_(std::move(name)), samples_(samples), capacity_(capacity) {
    while (num_bytes_ < 8 && (capacity - 1) >> 8 * num_bytes_ > 0) ++num_bytes_;
  }

  const std::vector<Sample>& sorted(std::int64_t first, std::int64_t last) {
    now_.resize(last - first);
    next_.resize(last - first);
    for (int byte = 0; byte < num_bytes_; ++byte) start_[byte].fill(0);
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t length = samples_.lengths[i];
      if (length < 1 || length > capacity_) reject(i);
      for (int byte = 0; byte < num_bytes_; ++byte) ++start_[byte][digit(length, byte) + 1];
    }
    for (int byte = 0; byte < num_bytes_; ++byte) {
      auto& start = start_[byte];
      std::partial_sum(start.begin(), start.end(), start.begin());
      const auto place = [&](const Sample& sample) {
        next_[start[digit(sample.length, byte)]++] = sample;
      };
      if (byte == 0) {
        for (std::int64_t i = first; i < last; ++i) place({samples_.lengths[i], i});
      } else {
        for (const Sample& sample : now_) place(sample);
      }
      now_.swap(next_);
    }
    return now_;
  }

 private:
  std::int64_t digit(std::int64_t length, int byte) const {
    return (capacity_ - length) >> 8 * byte & 255;
  }

  [[noreturn]] void reject(std::int64_t i) const {
    throw std::invalid_argument(name_ + ": lengths[" + std::to_string(i) +
                                "]: expected 1 up to the capacity, " + std::to_string(capacity_) +
                                ", found " + std::to_string(samples_.lengths[i]));
  }

  std::string name_;
  Samples samples_;
  std::int64_t capacity_;
  int num_bytes_ = 1;  // of capacity - 1, the most that a sample can lack
  std::array<std::array<std::int64_t, 257>, 8> start_;
  std::vector<Sample> now_, next_;
};

// Room left per bin, as the leaves of a tree whose inner nodes hold the maximum of their children,
// so that the first bin with enough room is found by one descent.
class Room {
 public:
  void empty_all(std::int64_t max_bins, std::int64_t capacity) {
    num_leaves_ = 1;
    while (num_leaves_ < max_bins) num_leaves_ *= 2;
    most_.assign(2 * num_leaves_, capacity);
  }

  // There always is one: see max_bins below.
  std::int64_t first_with(std::int64_t length) const {
    std::int64_t node = 1;
    while (node < num_leaves_) {
      node *= 2;
      node += most_[node] < length;
    }
    return node - num_leaves_;
  }

  std::int64_t left(std::int64_t bin) const { return most_[num_leaves_ + bin]; }

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

// First fit leaves no two bins that would fit into one: with several, they hold more than half of
// their capacity on average.
std::int64_t max_bins(const std::vector<Sample>& samples, std::int64_t capacity) {
  double tokens = 0;
  for (const Sample& sample : samples) tokens += static_cast<double>(sample.length);
  const auto bound = static_cast<std::int64_t>(2 * tokens / static_cast<double>(capacity)) + 1;
  return std::min(bound, static_cast<std::int64_t>(samples.size()));
}

// pack_window(samples by falling length, number of its first bin) -> number of bins it filled.
template <typename PackWindow>
void for_each_window(const std::string& name, Samples samples, std::int64_t capacity,
                     std::int64_t window, PackWindow pack_window) {
  if (window < 1) {
    throw std::invalid_argument(name + ": window: expected at least 1, found " +
                                std::to_string(window));
  }
  LongestFirst longest_first(name, samples, capacity);
  std::int64_t num_bins = 0;  // of the windows before
  for (std::int64_t first = 0; first < samples.num_samples;) {
    const std::int64_t last = first + std::min(window, samples.num_samples - first);
    num_bins += pack_window(longest_first.sorted(first, last), num_bins);
    first = last;
  }
}

}  // namespace

void pack_first_fit_decreasing(Samples samples, std::int64_t capacity, std::int64_t window,
                               std::int64_t* bins) {
  Room room;
  for_each_window(
      "pack_first_fit_decreasing", samples, capacity, window,
      [&](const std::vector<Sample>& sorted, std::int64_t first_bin) {
        room.empty_all(max_bins(sorted, capacity), capacity);
        std::int64_t opened = 0;
        for (auto sample = sorted.begin(); sample != sorted.end();) {
          // Samples of one length go on filling the bin that the first of them has found.
          const std::int64_t length = sample->length;
          const std::int64_t bin = room.first_with(length);
          const std::int64_t fitting = room.left(bin) / length;
          std::int64_t placed = 0;
          for (; placed < fitting && sample != sorted.end() && sample->length == length; ++sample) {
            bins[sample->index] = first_bin + bin;
            ++placed;
          }
          room.take(bin, placed * length);
          opened = std::max(opened, bin + 1);
        }
        return opened;
      });
}

void pack_length_ordered(Samples samples, std::int64_t capacity, std::int64_t window,
                         std::int64_t* bins) {
  for_each_window("pack_length_ordered", samples, capacity, window,
                  [&](const std::vector<Sample>& sorted, std::int64_t first_bin) {
                    std::int64_t bin = 0, left = capacity;
                    for (const Sample& sample : sorted) {
                      if (sample.length > left) {
                        ++bin;
                        left = capacity;
                      }
                      left -= sample.length;
                      bins[sample.index] = first_bin + bin;
                    }
                    return bin + 1;
                  });
}

}  // namespace bigft
