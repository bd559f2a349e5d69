// The definitions of RMSNorm and its gradients.
#pragma once

#include <cmath>

#include "tests/kernels/reference/matrix.h"

namespace shoestring::reference {

inline double InverseRms(const Matrix& x, int64_t row, double eps) {
  double squares = 0;
  for (int64_t j = 0; j < x.cols; ++j) squares += x.at(row, j) * x.at(row, j);
  return 1 / std::sqrt(squares / static_cast<double>(x.cols) + eps);
}

inline Matrix RmsNorm(const Matrix& x, const Matrix& gain, double eps) {
  Matrix y(x.rows, x.cols);
  for (int64_t i = 0; i < x.rows; ++i) {
    const double inverse = InverseRms(x, i, eps);
    for (int64_t j = 0; j < x.cols; ++j) y.at(i, j) = x.at(i, j) * inverse * gain.at(0, j);
  }
  return y;
}

// The whole Jacobian, term by term: dy_k/dx_j = g_k (delta_jk r - x_k x_j r^3 / D).
inline Matrix RmsNormBackwardInput(const Matrix& dy, const Matrix& x, const Matrix& gain, double eps) {
  Matrix dx(x.rows, x.cols);
  for (int64_t i = 0; i < x.rows; ++i) {
    const double r = InverseRms(x, i, eps);
    for (int64_t j = 0; j < x.cols; ++j) {
      for (int64_t k = 0; k < x.cols; ++k) {
        const double through_rms = x.at(i, k) * x.at(i, j) * r * r * r / static_cast<double>(x.cols);
        dx.at(i, j) += dy.at(i, k) * gain.at(0, k) * ((j == k ? r : 0) - through_rms);
      }
    }
  }
  return dx;
}

inline Matrix RmsNormBackwardWeight(const Matrix& dy, const Matrix& x, double eps) {
  Matrix d_gain(1, x.cols);
  for (int64_t i = 0; i < x.rows; ++i) {
    const double r = InverseRms(x, i, eps);
    for (int64_t j = 0; j < x.cols; ++j) d_gain.at(0, j) += dy.at(i, j) * x.at(i, j) * r;
  }
  return d_gain;
}

}  // namespace shoestring::reference
