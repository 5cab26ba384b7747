// Dropout's random numbers: a function of seed and position, so that no mask is stored.
//
// Philox4x32-10. Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011). Which number
// belongs to which element: docs/numerics.md, and bigft/ops/reference.py, dropout_mask.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define BIGFT_PHILOX_INLINE __host__ __device__ __forceinline__
#else
#define BIGFT_PHILOX_INLINE inline __attribute__((always_inline))
#endif

namespace bigft {

struct Philox4 {
  uint32_t word[4];
};

BIGFT_PHILOX_INLINE Philox4 philox(uint64_t key, uint64_t position, uint64_t stream) {
  uint32_t c0 = static_cast<uint32_t>(position), c1 = static_cast<uint32_t>(position >> 32);
  uint32_t c2 = static_cast<uint32_t>(stream), c3 = static_cast<uint32_t>(stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * c0;
    const uint64_t p1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
    const uint32_t high0 = static_cast<uint32_t>(p0 >> 32), high1 = static_cast<uint32_t>(p1 >> 32);
    c0 = high1 ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = high0 ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// A word below this is dropped.
BIGFT_PHILOX_INLINE uint32_t dropout_threshold(double dropout_p) {
  return static_cast<uint32_t>(dropout_p * 4294967296.0);
}

}  // namespace bigft
