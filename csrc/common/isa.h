// One loop, compiled for three instruction sets and chosen when it runs: a build made on one machine
// never dies of an illegal instruction on another.
//
//   template <class T> struct Body { static BIGFT_INLINE void run(Arguments...); };
//   vectorised<Body<float>>(arguments...);
#pragma once

#define BIGFT_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__GNUC__)
#define BIGFT_X86 1
#define BIGFT_AVX2 __attribute__((target("avx2,fma,f16c")))
// GCC holds back to 256 bits unless it is told that the wide registers pay.
#define BIGFT_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,prefer-vector-width=512")))
#endif

#include <cstdint>
#include <cstring>

#ifdef BIGFT_X86
#include <emmintrin.h>
#endif

namespace bigft {

enum class Isa { plain, avx2, avx512 };

// The widest that this CPU has; BIGFT_CPU_ISA=plain|avx2|avx512 asks for less. Read once.
Isa isa();
const char* isa_name();

#ifdef BIGFT_X86
template <class Body, class... Arguments>
BIGFT_AVX512 void run_avx512(const Arguments&... arguments) {
  Body::run(arguments...);
}

template <class Body, class... Arguments>
BIGFT_AVX2 void run_avx2(const Arguments&... arguments) {
  Body::run(arguments...);
}
#endif

template <class Body, class... Arguments>
void vectorised(const Arguments&... arguments) {
#ifdef BIGFT_X86
  if (isa() == Isa::avx512) return run_avx512<Body>(arguments...);
  if (isa() == Isa::avx2) return run_avx2<Body>(arguments...);
#endif
  Body::run(arguments...);
}

// A copy that does not fetch or keep the cache lines it writes: for what is read much later. Whoever else
// reads it does so after a stream_fence.
BIGFT_INLINE void stream(void* to, const void* from, size_t num_bytes) {
  char* out = static_cast<char*>(to);
  const char* in = static_cast<const char*>(from);
#ifdef BIGFT_X86
  const size_t head = (-reinterpret_cast<uintptr_t>(out) & 15) < num_bytes
      ? -reinterpret_cast<uintptr_t>(out) & 15 : num_bytes;
  std::memcpy(out, in, head);
  out += head, in += head, num_bytes -= head;
  for (; num_bytes >= 16; out += 16, in += 16, num_bytes -= 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(out), _mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
  }
#endif
  std::memcpy(out, in, num_bytes);
}

BIGFT_INLINE void stream_fence() {
#ifdef BIGFT_X86
  _mm_sfence();
#endif
}

}  // namespace bigft
