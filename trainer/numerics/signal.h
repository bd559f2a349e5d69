// How far a tensor is from another, and what a quantiser loses: sums that grow piece by piece, and the figures they
// give.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/tensor.h"

namespace shoestring {

// A tensor against its reference, in double. Pieces may come one after the other.
class Signal {
 public:
  // Of equal length.
  void Add(absl::Span<const float> reference, absl::Span<const float> value);
  void Merge(const Signal& other);

  int64_t elements() const { return elements_; }
  // 10 log10(sum r^2 / sum (x - r)^2). Equal tensors: +infinity; a difference where the reference is 0: -infinity;
  // elements that are not finite: NaN, and so are the other figures then, or infinite.
  double SnrDb() const;
  // sqrt(sum (x - r)^2 / sum r^2); 0 for equal tensors.
  double RelativeError() const;
  // Of the angle between both; 1 if both are 0, 0 if one is.
  double Cosine() const;
  double max_error() const { return max_error_; }          // largest |x - r|
  double max_reference() const { return max_reference_; }  // largest |r|

 private:
  int64_t elements_ = 0;
  double reference_squares_ = 0;
  double value_squares_ = 0;
  double error_squares_ = 0;
  double products_ = 0;
  double max_error_ = 0;
  double max_reference_ = 0;
};

// What a quantiser did to the elements of a tensor, seen in the codes' own range: x / scale.
struct QuantiserLoss {
  int64_t elements = 0;
  int64_t nonzero = 0;    // of the input
  int64_t saturated = 0;  // |x / scale| >= the format's largest value, but for the rounding of the scale itself: with
                          // scales from the amax one element a tile, at least, unless scales are rounded up
  int64_t flushed = 0;    // not zero before, zero after
  int64_t subnormal = 0;  // not zero before; below the smallest normal number after, but not zero
  double scale_min = 0;   // over the tiles' scales that elements used
  double scale_max = 0;
  Signal noise;  // input against what the codes stand for

  // Of equal length: the input, the scale of each element's tile, and what its code stands for.
  void Add(DType format, absl::Span<const float> x, absl::Span<const float> scale, absl::Span<const float> y);
  void Merge(const QuantiserLoss& other);

  double saturated_share() const { return Share(saturated, elements); }
  double flushed_share() const { return Share(flushed, nonzero); }
  // Flushed and subnormal ones together, among those that were not zero.
  double underflow_share() const { return Share(flushed + subnormal, nonzero); }

 private:
  static double Share(int64_t part, int64_t whole) {
    return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
  }
};

// Every element of a plain or quantised matrix as FP32, row by row; in host memory. `scales`, if given, receives the
// scale of each element. `stack` and `segments` as in QuantizeArgs; rows that do not exist read as 0.
std::vector<float> ReadElements(const Operand& x, int64_t stack = 1, const Segments& segments = {},
                                std::vector<float>* scales = nullptr);

}  // namespace shoestring
