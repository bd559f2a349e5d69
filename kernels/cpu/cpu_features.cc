// Asks the CPU which of our instruction-set levels it can run.
#include "kernels/cpu/cpu_features.h"

#include "base/check.h"

namespace shoestring {

absl::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kPortable: return "portable";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx512Bf16: return "avx512_bf16";
  }
  CHECK(false);
  return "";
}

bool IsaSupported(Isa isa) {
  // The builtins look at XCR0 too, so a level that the operating system does not save counts as absent.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case Isa::kPortable: return true;
    case Isa::kAvx2: return avx2;
    case Isa::kAvx512: return avx512;
    case Isa::kAvx512Bf16: return avx512 && __builtin_cpu_supports("avx512bf16");
  }
  return false;
}

Isa DefaultIsa() {
  const Isa highest = SupportedIsas().back();
  return highest == Isa::kAvx512Bf16 && __builtin_cpu_is("intel") ? Isa::kAvx512 : highest;
}

std::vector<Isa> SupportedIsas() {
  std::vector<Isa> supported;
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (IsaSupported(isa)) supported.push_back(isa);
  }
  return supported;
}

}  // namespace shoestring
