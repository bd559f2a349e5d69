// A matrix of doubles: what the definitions of the operations compute with.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/tensor.h"

namespace shoestring::reference {

struct Matrix {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<double> values;

  Matrix() = default;
  Matrix(int64_t rows, int64_t cols) : rows(rows), cols(cols), values(rows * cols, 0.0) {}
  double& at(int64_t r, int64_t c) { return values[r * cols + c]; }
  double at(int64_t r, int64_t c) const { return values[r * cols + c]; }
};

// To the nearest number of that type.
inline double RoundTo(DType dtype, double x) {
  const float f = static_cast<float>(x);
  return dtype == DType::kBF16 ? static_cast<float>(BF16(f)) : f;
}

// Sum of the products of all elements.
inline double Inner(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (size_t i = 0; i < a.values.size(); ++i) sum += a.values[i] * b.values[i];
  return sum;
}

// The gradient of a scalar function by central differences: how the definitions of gradients are checked themselves.
inline Matrix FiniteDifferences(Matrix x, const std::function<double(const Matrix&)>& f, double step = 1e-5) {
  Matrix gradient(x.rows, x.cols);
  for (size_t i = 0; i < x.values.size(); ++i) {
    const double keep = x.values[i];
    x.values[i] = keep + step;
    const double above = f(x);
    x.values[i] = keep - step;
    const double below = f(x);
    x.values[i] = keep;
    gradient.values[i] = (above - below) / (2 * step);
  }
  return gradient;
}

}  // namespace shoestring::reference
