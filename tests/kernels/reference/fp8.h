// The definitions of FP8: what codes stand for, and the product of FP8 operands as plain loops over single elements.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

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

// The code nearest to x, ties to the even one, saturating; NaN becomes the code with all bits below the sign.
inline uint32_t NearestCode(DType dtype, double x) {
  const SmallFormat format = FormatOf(dtype);
  const uint32_t sign_bit = 1u << (format.exponent_bits + format.fraction_bits);
  if (std::isnan(x)) return sign_bit - 1;
  const double magnitude = std::abs(x);
  uint32_t below = 0, above = format.first_nan;  // value(below) <= magnitude < value(above)
  while (above - below > 1) {
    const uint32_t middle = (below + above) / 2;
    (ValueOf(dtype, middle) <= magnitude ? below : above) = middle;
  }
  if (above != format.first_nan) {
    const double down = magnitude - ValueOf(dtype, below), up = ValueOf(dtype, above) - magnitude;
    if (up < down || (up == down && above % 2 == 0)) below = above;
  }
  return std::signbit(x) ? below | sign_bit : below;
}

// The scale of a tile whose largest magnitude is given, by the words of QuantizeArgs.
inline float ScaleOf(DType dtype, float largest, bool power_of_two) {
  const float scale = largest / static_cast<float>(ValueOf(dtype, FormatOf(dtype).first_nan - 1));
  if (scale == 0) return 1;
  if (!power_of_two || std::isinf(scale)) return scale;
  int exponent = 0;
  const float fraction = std::frexp(scale, &exponent);  // in [0.5, 1)
  // The smallest scale is a normal number.
  return std::ldexp(1.0f, std::max(fraction == 0.5f ? exponent - 1 : exponent, -126));
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
// The short accumulator by the words of docs/numerics.md: `terms` are at most 32 products. Exponents are those of the
// operands' formats, so a subnormal operand has its format's least one and a fraction below 1.
struct ShortTerm {
  double a, b;
  DType a_type, b_type;
};
inline int ExponentOf(DType dtype, double x) {
  int exponent = 0;
  std::frexp(x, &exponent);
  return std::max(exponent - 1, 1 - FormatOf(dtype).bias);
}
inline double TruncateTo(double x, int last_place) {
  return std::ldexp(std::trunc(std::ldexp(x, -last_place)), last_place);
}

inline float AddShort(float accumulator, const std::vector<ShortTerm>& terms) {
  int largest = -1000;
  double exact = accumulator;
  if (accumulator != 0) largest = std::ilogb(accumulator);
  for (const ShortTerm& t : terms) {
    exact += t.a * t.b;
    if (t.a * t.b != 0) largest = std::max(largest, ExponentOf(t.a_type, t.a) + ExponentOf(t.b_type, t.b));
  }
  if (std::isnan(exact) || largest == -1000) return static_cast<float>(exact);
  double sum = TruncateTo(accumulator, largest - 13);
  for (const ShortTerm& t : terms) sum += TruncateTo(t.a * t.b, largest - 13);
  return sum == 0 ? 0.0f : static_cast<float>(TruncateTo(sum, std::ilogb(sum) - 13));
}

template <typename TermAt>
Fp8Dot Fp8Element(int64_t k, const Fp8Accumulation& how, DType a_type, DType b_type, TermAt term_at) {
  Fp8Dot dot;
  for (int64_t start = 0; start < k; start += how.interval) {
    float sum = 0;
    Fp8Term term = {};
    std::vector<ShortTerm> group;
    const int64_t end = std::min(k, start + how.interval);
    for (int64_t p = start; p < end; ++p) {
      term = term_at(p);
      if (how.hopper) {
        group.push_back({term.a, term.b, a_type, b_type});
        if (group.size() == 32 || p + 1 == end) {
          sum = AddShort(sum, group);
          group.clear();
        }
      } else {
        sum = std::fma(static_cast<float>(term.a), static_cast<float>(term.b), sum);
      }
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
