#include "spans.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace bigft {
namespace {

[[noreturn]] void reject(const std::string& argument, std::int64_t index,
                         const std::string& expected, std::int64_t found) {
  throw std::invalid_argument("decode_spans: " + argument + "[" + std::to_string(index) +
                              "]: expected " + expected + ", found " + std::to_string(found));
}

void check_prefixes(const TagSet& tag_set) {
  for (std::int64_t tag = 0; tag < tag_set.num_tags; ++tag) {
    const std::int8_t prefix = tag_set.prefix[tag];
    if (prefix < 0 || prefix >= kNumPrefixes) {
      reject("prefix", tag, "a code from 0 to 4 (O, B, I, E, S)", prefix);
    }
  }
}

void check_offsets(const Sentences& sentences) {
  const auto [tags, num_words, offsets, num_sentences] = sentences;
  if (offsets[0] != 0) reject("offsets", 0, "0", offsets[0]);
  for (std::int64_t s = 1; s <= num_sentences; ++s) {
    if (offsets[s] < offsets[s - 1]) {
      reject("offsets", s, "at least " + std::to_string(offsets[s - 1]), offsets[s]);
    }
  }
  if (offsets[num_sentences] != num_words) {
    reject("offsets", num_sentences, "the number of tags, " + std::to_string(num_words),
           offsets[num_sentences]);
  }
}

}  // namespace

// The two conventions are one loop: they differ in which prefixes may begin a chunk, and in
// whether a chunk that no E closes counts. In a tag set without E and S nothing ever closes one.
std::vector<Span> decode_spans(const Sentences& sentences, const TagSet& tag_set,
                               Convention convention) {
  check_prefixes(tag_set);
  check_offsets(sentences);
  const bool lenient = convention == Convention::kConlleval;
  const bool has_closing =
      std::any_of(tag_set.prefix, tag_set.prefix + tag_set.num_tags,
                  [](std::int8_t prefix) { return prefix == kEnd || prefix == kSingle; });
  const bool unclosed_counts = lenient || !has_closing;

  std::vector<Span> spans;
  for (std::int64_t s = 0; s < sentences.num_sentences; ++s) {
    const std::int64_t first = sentences.offsets[s];
    const auto length = static_cast<std::int32_t>(sentences.offsets[s + 1] - first);
    std::int32_t start = -1;  // of the open chunk; -1 is none
    std::int32_t open_type = -1;
    const auto close = [&](std::int32_t end) {
      spans.push_back({static_cast<std::int32_t>(s), start, end, open_type});
    };
    for (std::int32_t word = 0; word < length; ++word) {
      const std::int32_t tag = sentences.tags[first + word];
      if (tag < 0 || tag >= tag_set.num_tags) {
        reject("tags", first + word, "a tag id below " + std::to_string(tag_set.num_tags), tag);
      }
      const std::int8_t prefix = tag_set.prefix[tag];
      const std::int32_t type = tag_set.type[tag];
      const bool continues =
          start >= 0 && (prefix == kInside || prefix == kEnd) && type == open_type;
      if (!continues) {
        if (start >= 0 && unclosed_counts) close(word);
        const bool begins =
            prefix == kBegin || prefix == kSingle || (lenient && prefix != kOutside);
        start = begins ? word : -1;
        open_type = type;
      }
      if (start >= 0 && (prefix == kEnd || prefix == kSingle)) {
        close(word + 1);
        start = -1;
      }
    }
    if (start >= 0 && unclosed_counts) close(length);
  }
  return spans;
}

}  // namespace bigft
