#include "isa.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace bigft {
namespace {

Isa widest() {
#ifdef BIGFT_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) return Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::plain;
}

Isa chosen() {
  const char* asked = std::getenv("BIGFT_CPU_ISA");
  if (asked == nullptr || *asked == '\0') return widest();
  const std::string name = asked;
  if (name == "plain") return Isa::plain;
  if (name == "avx2") return std::min(Isa::avx2, widest());
  if (name == "avx512") return widest();
  throw std::invalid_argument("BIGFT_CPU_ISA is '" + name + "'; it should be plain, avx2 or avx512");
}

}  // namespace

Isa isa() {
  static const Isa isa = chosen();
  return isa;
}

const char* isa_name() {
  const char* const names[] = {"plain", "avx2", "avx512"};
  return names[static_cast<int>(isa())];
}

}  // namespace bigft
