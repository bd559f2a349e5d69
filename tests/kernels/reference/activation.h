// The definitions of SwiGLU, its gradient, and rotary positions.
#pragma once

#include <cmath>
#include <complex>

#include "tests/kernels/reference/matrix.h"

namespace shoestring::reference {

inline double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// row_weight: [1, R].
inline Matrix SwiGlu(const Matrix& gate_up, const Matrix& row_weight) {
  const int64_t width = gate_up.cols / 2;
  Matrix y(gate_up.rows, width);
  for (int64_t i = 0; i < y.rows; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      const double gate = gate_up.at(i, j);
      y.at(i, j) = gate * Sigmoid(gate) * gate_up.at(i, width + j) * row_weight.at(0, i);
    }
  }
  return y;
}

struct SwiGluGradients {
  Matrix d_gate_up;
  Matrix d_row_weight;
};

inline SwiGluGradients SwiGluBackward(const Matrix& gate_up, const Matrix& row_weight, const Matrix& dy) {
  const int64_t width = gate_up.cols / 2;
  SwiGluGradients out = {Matrix(gate_up.rows, gate_up.cols), Matrix(1, gate_up.rows)};
  for (int64_t i = 0; i < dy.rows; ++i) {
    const double weight = row_weight.at(0, i);
    for (int64_t j = 0; j < width; ++j) {
      const double gate = gate_up.at(i, j);
      const double up = gate_up.at(i, width + j);
      const double e = std::exp(-gate);
      const double silu = gate / (1 + e);
      const double silu_slope = (1 + e + gate * e) / ((1 + e) * (1 + e));  // the quotient rule on g / (1 + e^-g)
      out.d_gate_up.at(i, j) = dy.at(i, j) * weight * up * silu_slope;
      out.d_gate_up.at(i, width + j) = dy.at(i, j) * weight * silu;
      out.d_row_weight.at(0, i) += dy.at(i, j) * up * silu;
    }
  }
  return out;
}

// Pair (2j, 2j + 1) from column `first` on is a complex number, turned by cos + i sin of its pair.
inline void Rotate(Matrix& x, int64_t row, int64_t first, const std::vector<std::complex<double>>& turns) {
  for (size_t j = 0; j < turns.size(); ++j) {
    const int64_t col = first + 2 * static_cast<int64_t>(j);
    const std::complex<double> turned = std::complex<double>(x.at(row, col), x.at(row, col + 1)) * turns[j];
    x.at(row, col) = turned.real();
    x.at(row, col + 1) = turned.imag();
  }
}

}  // namespace shoestring::reference
