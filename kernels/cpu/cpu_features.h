// Which instruction sets the CPU backend has code for, and which of them this machine can run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace shoestring {

// Ordered: every level includes those before it. Bits are promised within one level (NUMERICS.md rule 8), so the level
// is chosen once for a run and never mixed. AMX is left out on purpose: docs/decisions/0002-no-amx.md.
enum class Isa : int {
  kPortable = 0,    // plain C++; any CPU
  kAvx2 = 1,        // AVX2 + FMA
  kAvx512 = 2,      // AVX-512 F, BW, DQ, VL
  kAvx512Bf16 = 3,  // and vdpbf16ps
};

// "portable", "avx2", "avx512", "avx512_bf16": the words used by logs and reports.
absl::string_view IsaName(Isa isa);

// True if this machine (CPU and operating system) can run code of that level.
bool IsaSupported(Isa isa);

// The level to run with unless told otherwise: the fastest one here, as a fixed function of the processor. That is the
// highest one, except on Intel, whose vdpbf16ps multiplies slower than the same numbers as floats (122 against 229
// GFLOP/s a core measured on a Xeon with AMX): there it is kAvx512, which also runs, with equal bits, on AMD.
Isa DefaultIsa();

// Every level that this machine supports, lowest first; never empty.
std::vector<Isa> SupportedIsas();

}  // namespace shoestring
