// The names of tensor types, as they appear in logs, reports and messages.
#include "kernels/tensor.h"

namespace shoestring {

const char* Name(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "f32";
    case DType::kBF16: return "bf16";
    case DType::kE4M3: return "e4m3";
    case DType::kE5M2: return "e5m2";
    case DType::kE5M6: return "e5m6";
    case DType::kI32: return "i32";
    case DType::kI64: return "i64";
    case DType::kF64: return "f64";
    case DType::kU8: return "u8";
  }
  CHECK(false);
  return "";
}

}  // namespace shoestring
