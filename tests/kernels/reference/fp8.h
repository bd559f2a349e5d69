// The definitions of FP8: what codes stand for, and the product of FP8 operands as plain loops over single elements.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/operations.h"
#include "kernels/tensor.h"

namespace shoestring::reference {

// A small format by its field widths, from the texts that define it; nothing here is shared with the kernels.
struct SmallFormat {
  int exponent_bits, fraction_bits, bias;
  uint32_t first_nan;  // the first code, without sign, that is no finite number
};
inline SmallFormat FormatOf(DType dtype) {
  if (dtype == DType::kE4M3) return {4, 3, 7, 0x7f};
  if (dtype == DType::kE5M2) return {5, 2, 15, 0x7c};
  return {5, 6, 15, 0x7c0};
}

inline double ValueOf(DType dtype, uint32_t code) {
  const SmallFormat format = FormatOf(dtype);
  const uint32_t sign_bit = 1u << (format.exponent_bits + format.fraction_bits);
  const uint32_t magnitude = code & (sign_bit - 1);
  if (magnitude >= format.first_nan) return std::numeric_limits<double>::quiet_NaN();
  const int exponent = static_cast<int>(magnitude >> format.fraction_bits);
  const double fraction = magnitude % (1u << format.fraction_bits);
  const double one = 1u << format.fraction_bits;
  const double value = exponent == 0 ? std::ldexp(fraction / one, 1 - format.bias)
                                     : std::ldexp(1 + fraction / one, exponent - format.bias);
  return (code & sign_bit) != 0 ? -value : value;
}

// One element of a product by the definition, beside the same in float64.
struct Fp8Dot {
  float acc = 0;         // as Fp8Accumulation defines it
  double value = 0;      // exact but for float64
  double magnitude = 0;  // sum of the terms' magnitudes
};

// `Term` gives the values a(k), b(k) and their scales; its type has fields a, b (double) and scale_a, scale_b (float).
struct Fp8Term {
  double a, b;
  float scale_a, scale_b;
};
template <typename TermAt>
Fp8Dot Fp8Element(int64_t k, int64_t interval, TermAt term_at) {
  Fp8Dot dot;
  for (int64_t start = 0; start < k; start += interval) {
    float sum = 0;
    Fp8Term term = {};
    for (int64_t p = start; p < std::min(k, start + interval); ++p) {
      term = term_at(p);
      sum = std::fma(static_cast<float>(term.a), static_cast<float>(term.b), sum);
      const double product = term.a * term.b * term.scale_a * term.scale_b;
      dot.value += product;
      dot.magnitude += std::abs(product);
    }
    const float scale = term.scale_a * term.scale_b;
    dot.acc = std::fma(sum, scale, dot.acc);
  }
  return dot;
}

}  // namespace shoestring::reference
