// FP8 as released files have it: E4M3 values and one FP32 scale for every 128 x 128 block (V3 report, section 3.3.2).
#pragma once

#include <cstdint>

namespace shoestring {

inline constexpr int64_t kFp8Block = 128;  // rows, and columns, of a block; the last ones of a matrix may be ragged

constexpr int64_t Fp8Blocks(int64_t elements) { return (elements + kFp8Block - 1) / kFp8Block; }

// amax / 448 in FP32; 1 for an amax of 0 and where the quotient underflows to 0. With `power_of_two` the next power of
// two that is not below it, 2^-126 or larger. `amax` is finite and not negative.
float Fp8Scale(float amax, bool power_of_two);

// A band is at most kFp8Block rows of a row-major matrix, from a row that kFp8Block divides: one row of blocks. These
// plain loops are for files; what a step computes is Backend::Quantize.

// scales [Fp8Blocks(cols)] of values [rows, cols]. False, and the scales are undefined, if a value is not finite.
bool ScalesOfBand(const float* values, int64_t rows, int64_t cols, bool power_of_two, float* scales);

// codes [rows, cols]: values / scale to nearest, ties to even, saturating.
void QuantizeBand(const float* values, int64_t rows, int64_t cols, const float* scales, uint8_t* codes);

// values [count] of elements [first, first + count) of a row: code * scale in FP32. `scales` is of the row's band.
void DequantizeInRow(const uint8_t* codes, int64_t first, int64_t count, const float* scales, float* values);

}  // namespace shoestring
