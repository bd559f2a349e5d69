// The definition of a matrix product: the plain loop in float64, over values that are exactly what the kernel reads.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/operations.h"
#include "kernels/tensor.h"

namespace shoestring::reference {

// Element (row, column) of a row-major matrix of f32 or bf16 as a double.
inline double At(const void* data, DType dtype, int64_t ld, int64_t row, int64_t column) {
  const int64_t i = row * ld + column;
  if (dtype == DType::kF32) return static_cast<const float*>(data)[i];
  return static_cast<float>(static_cast<const BF16*>(data)[i]);
}

// One element of the product and the sum of its terms' magnitudes, which scales the permitted error.
struct Dot {
  double value = 0;
  double magnitude = 0;
};

// Element (i, j) of the product of a and b in the given layout; shapes as in kernels/cpu/gemm.h.
inline Dot GemmElement(GemmLayout layout, int64_t k, const void* a, int64_t lda, const void* b, int64_t ldb,
                       DType dtype, int64_t i, int64_t j) {
  Dot dot;
  for (int64_t p = 0; p < k; ++p) {
    const double left = layout == GemmLayout::kTN ? At(a, dtype, lda, p, i) : At(a, dtype, lda, i, p);
    const double right = layout == GemmLayout::kNT ? At(b, dtype, ldb, j, p) : At(b, dtype, ldb, p, j);
    dot.value += left * right;
    dot.magnitude += std::abs(left * right);
  }
  return dot;
}

}  // namespace shoestring::reference
