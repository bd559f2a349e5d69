// The comparison of a product of FP8 operands with the float64 one of the numbers that they stand for.
#pragma once

#include <string>

#include "tests/trainer/model/harness.h"
#include "tests/trainer/model/quantised_reference.h"

namespace shoestring {

// FP32 sums of exact products: 2^-24 an addition, a few hundred of them, of terms that mostly cancel.
inline void ExpectSum(const Matrix& ours, const Matrix& sum, const Matrix& magnitudes, bool bf16,
                      const std::string& what) {
  for (size_t i = 0; i < sum.values.size(); ++i) {
    const double rounding = bf16 ? std::abs(sum.values[i]) / 256 : 0;
    ASSERT_NEAR(ours.values[i], sum.values[i], rounding + 4e-6 * magnitudes.values[i]) << what << " element " << i;
  }
}
inline Matrix Absolute(Matrix m) {
  for (double& v : m.values) v = std::abs(v);
  return m;
}
inline void ExpectProduct(View ours, const Matrix& a, const Matrix& b, const std::string& what) {
  ExpectSum(ToMatrix(ours), quantised_reference::Times(a, b), quantised_reference::Times(Absolute(a), Absolute(b)),
            ours.dtype == DType::kBF16, what);
}

}  // namespace shoestring
