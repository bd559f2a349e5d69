// The quantiser and the products of FP8 linear layers as plain float64 loops over matrices of numbers: the definition
// that trainer/model is tested against. Written from docs/numerics.md alone; shares no code with kernels/.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/trainer/model/reference_model.h"

namespace shoestring::quantised_reference {

using model_reference::Matrix;

// A format by its numbers; every value of it is a multiple of its binade's step.
struct Format {
  int fraction_bits;
  int smallest_exponent;  // of normal numbers
  double largest;
};
constexpr Format kE4M3 = {3, -6, 448};
constexpr Format kE5M2 = {2, -14, 57344};
constexpr Format kE5M6 = {6, -14, 65024};

// The nearest number of the format, ties to even, saturating.
inline double Round(double x, const Format& format) {
  const double magnitude = std::min(std::abs(x), format.largest);
  if (magnitude == 0) return 0;
  const int exponent = std::max(std::ilogb(magnitude), format.smallest_exponent);
  const double step = std::ldexp(1.0, exponent - format.fraction_bits);
  return std::copysign(std::min(std::nearbyint(magnitude / step) * step, format.largest), x);
}

inline double ToBf16(double x) {
  if (x == 0) return 0;
  const double step = std::ldexp(1.0, std::ilogb(x) - 7);
  return std::nearbyint(x / step) * step;
}

inline Matrix ToBf16(Matrix m) {
  for (double& v : m.values) v = ToBf16(v);
  return m;
}

// What remains of x [first row, end row) in tiles of `rows` x `cols`: scale = amax / largest in FP32.
inline void QuantiseRows(const Format& format, int64_t rows, int64_t cols, bool power_of_two, int64_t first,
                         int64_t end, Matrix& x) {
  for (int64_t r0 = first; r0 < end; r0 += rows) {
    for (int64_t c0 = 0; c0 < x.cols; c0 += cols) {
      const int64_t r1 = std::min(r0 + rows, end), c1 = std::min(c0 + cols, x.cols);
      double largest = 0;
      for (int64_t r = r0; r < r1; ++r) {
        for (int64_t c = c0; c < c1; ++c) largest = std::max(largest, std::abs(x.at(r, c)));
      }
      float scale = static_cast<float>(largest) / static_cast<float>(format.largest);
      if (scale == 0) scale = 1;
      if (power_of_two) scale = static_cast<float>(std::exp2(std::ceil(std::log2(static_cast<double>(scale)))));
      for (int64_t r = r0; r < r1; ++r) {
        for (int64_t c = c0; c < c1; ++c) {
          const float quotient = static_cast<float>(x.at(r, c)) / scale;
          x.at(r, c) = static_cast<float>(Round(quotient, format) * static_cast<double>(scale));
        }
      }
    }
  }
}

inline Matrix Quantise(Matrix x, const Format& format, int64_t rows, int64_t cols, bool power_of_two = false) {
  QuantiseRows(format, rows, cols, power_of_two, 0, x.rows, x);
  return x;
}

inline Matrix Transposed(const Matrix& a) {
  Matrix t(a.cols, a.rows);
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) t.at(c, r) = a.at(r, c);
  }
  return t;
}

// a [M, K] b [K, N].
inline Matrix Times(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.cols);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t k = 0; k < a.cols; ++k) {
      for (int64_t j = 0; j < b.cols; ++j) c.at(i, j) += a.at(i, k) * b.at(k, j);
    }
  }
  return c;
}

}  // namespace shoestring::quantised_reference
