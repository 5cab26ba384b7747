// Tag sequences to entity spans, in one pass over all sentences.
#pragma once

#include <cstdint>
#include <vector>

namespace bigft {

// Codes of a tag's prefix; the order is part of the Python interface (bigft/_host.pyi).
enum Prefix : std::int8_t { kOutside = 0, kBegin = 1, kInside = 2, kEnd = 3, kSingle = 4 };
constexpr std::int8_t kNumPrefixes = 5;

enum class Convention {
  kStrict,     // only well-formed chunks count
  kConlleval,  // lenient: a chunk may also begin with I or E and may end anywhere
};

// One row of decode_spans' answer. Words are numbered from 0 in their sentence; end is exclusive.
struct Span {
  std::int32_t sentence, start, end, type;
};

// prefix and type describe the tags by id.
struct TagSet {
  const std::int8_t* prefix;
  const std::int32_t* type;
  std::int64_t num_tags;
};

// Sentence s is tags[offsets[s]] up to tags[offsets[s + 1]].
struct Sentences {
  const std::int32_t* tags;
  std::int64_t num_words;
  const std::int64_t* offsets;
  std::int64_t num_sentences;
};

// Throws std::invalid_argument, naming argument and position, where the input contradicts itself.
std::vector<Span> decode_spans(const Sentences& sentences, const TagSet& tag_set,
                               Convention convention);

}  // namespace bigft
