// Faults that a test build plants on purpose, to see that the tests catch them; nothing in others.
#pragma once

#ifdef BIGFT_FAULTS
#include <string>
namespace bigft {
inline std::string planted_fault;  // empty: none
}
#define BIGFT_FAULT(name) (bigft::planted_fault == #name)
#else
#define BIGFT_FAULT(name) false
#endif
