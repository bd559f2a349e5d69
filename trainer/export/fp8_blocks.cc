// Block by block, in the order of the elements.
#include "trainer/export/fp8_blocks.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/e4m3.h"

namespace shoestring {

namespace {

constexpr int kSmallestExponent = std::numeric_limits<float>::min_exponent - 1;  // of a normal number: -126

}  // namespace

float Fp8Scale(float amax, bool power_of_two) {
  const float scale = amax / E4M3::kLargest;
  if (scale == 0) return 1;
  if (!power_of_two) return scale;
  int exponent = 0;
  const float fraction = std::frexp(scale, &exponent);  // in [0.5, 1)
  return std::ldexp(1.0f, std::max(fraction == 0.5f ? exponent - 1 : exponent, kSmallestExponent));
}

bool ScalesOfBand(const float* values, int64_t rows, int64_t cols, bool power_of_two, float* scales) {
  for (int64_t left = 0; left < cols; left += kFp8Block) {
    float amax = 0;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t col = left; col < std::min(left + kFp8Block, cols); ++col) {
        const float value = values[row * cols + col];
        if (!std::isfinite(value)) return false;
        amax = std::max(amax, std::fabs(value));
      }
    }
    scales[left / kFp8Block] = Fp8Scale(amax, power_of_two);
  }
  return true;
}

void QuantizeBand(const float* values, int64_t rows, int64_t cols, const float* scales, uint8_t* codes) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      codes[row * cols + col] = EncodeE4M3(values[row * cols + col] / scales[col / kFp8Block]);
    }
  }
}

void DequantizeInRow(const uint8_t* codes, int64_t first, int64_t count, const float* scales, float* values) {
  for (int64_t i = 0; i < count; ++i) values[i] = DecodeE4M3(codes[i]) * scales[(first + i) / kFp8Block];
}

}  // namespace shoestring
