// Sums of squares, and the decoding of what is held in fewer bits.
#include "trainer/numerics/signal.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "kernels/e4m3.h"

namespace shoestring {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// NaN wins.
double Larger(double a, double b) { return b > a || std::isnan(b) ? b : a; }

// A scale is the amax / the largest value, rounded: seen from it, the amax itself may lie half a unit below that value.
constexpr double kScaleRounding = 1 - 0x1p-23;

struct FormatRange {
  float largest = 0;
  float smallest_normal = 0;
};

FormatRange RangeOf(DType format) {
  switch (format) {
    case DType::kE4M3: return {E4M3::kLargest, 0x1p-6f};
    case DType::kE5M2: return {E5M2::kLargest, 0x1p-14f};
    case DType::kE5M6: return {E5M6::kLargest, 0x1p-14f};
    default: break;
  }
  CHECK(IsQuantised(format));
  return {};
}

template <typename Format>
void DecodeBytes(const std::byte* codes, int64_t count, float* out) {
  std::array<float, 256> table;
  for (uint32_t code = 0; code < table.size(); ++code) table[code] = Format::Decode(code);
  for (int64_t i = 0; i < count; ++i) out[i] = table[static_cast<uint8_t>(codes[i])];
}

// Two values in three bytes, the even column in the low twelve bits.
void DecodePairs(const std::byte* bytes, int64_t count, float* out) {
  const auto byte = [&](int64_t i) { return static_cast<uint32_t>(bytes[i]); };
  for (int64_t i = 0; i + 1 < count; i += 2) {
    const int64_t first = i / 2 * 3;
    const uint32_t pair = byte(first) | byte(first + 1) << 8 | byte(first + 2) << 16;
    out[i] = E5M6::Decode(pair & 0xfff);
    out[i + 1] = E5M6::Decode(pair >> 12);
  }
}

// Codes of quantised types, as they are without their scales.
void DecodeRow(ConstView x, int64_t row, float* out) {
  switch (x.dtype) {
    case DType::kF32: std::copy_n(x.as<float>(row), x.cols, out); return;
    case DType::kBF16:
      std::transform(x.as<BF16>(row), x.as<BF16>(row) + x.cols, out, [](BF16 v) { return float(v); });
      return;
    case DType::kE4M3: DecodeBytes<E4M3>(x.row_bytes(row), x.cols, out); return;
    case DType::kE5M2: DecodeBytes<E5M2>(x.row_bytes(row), x.cols, out); return;
    case DType::kE5M6: DecodePairs(x.row_bytes(row), x.cols, out); return;
    default: break;
  }
  CHECK(x.dtype == DType::kF32);
}

// The row of the scales that belongs to each row of the values; -1: the row does not exist.
std::vector<int64_t> ScaleRowOf(const Operand& x, int64_t stack, const Segments& segments) {
  const int64_t rows = x.values.rows;
  std::vector<int64_t> scale_row(rows, -1);
  if (segments.groups > 0) {
    const int32_t* offsets = segments.offsets.as<int32_t>();
    for (int64_t e = 0; e < segments.groups; ++e) {
      for (int64_t r = offsets[e]; r < offsets[e + 1]; ++r) {
        scale_row[r] = x.tile.rows > 1 ? SegmentScaleRow(x.tile, offsets[e], e) + (r - offsets[e]) / x.tile.rows : r;
      }
    }
    return scale_row;
  }
  const int64_t height = rows / stack;
  for (int64_t r = 0; r < rows; ++r) {
    scale_row[r] = r / height * ScaleRows(x.tile, height) + r % height / x.tile.rows;
  }
  return scale_row;
}

}  // namespace

void Signal::Add(absl::Span<const float> reference, absl::Span<const float> value) {
  CHECK_EQ(reference.size(), value.size());
  Signal piece;  // of its own: nothing that is written can alias what is read
  piece.elements_ = static_cast<int64_t>(value.size());
  for (size_t i = 0; i < value.size(); ++i) {
    const double r = reference[i], x = value[i];
    const double error = x - r;
    piece.reference_squares_ += r * r;
    piece.value_squares_ += x * x;
    piece.error_squares_ += error * error;
    piece.products_ += r * x;
    piece.max_error_ = Larger(piece.max_error_, std::abs(error));
    piece.max_reference_ = Larger(piece.max_reference_, std::abs(r));
  }
  Merge(piece);
}

void Signal::Merge(const Signal& other) {
  elements_ += other.elements_;
  reference_squares_ += other.reference_squares_;
  value_squares_ += other.value_squares_;
  error_squares_ += other.error_squares_;
  products_ += other.products_;
  max_error_ = Larger(max_error_, other.max_error_);
  max_reference_ = Larger(max_reference_, other.max_reference_);
}

double Signal::SnrDb() const {
  if (!std::isfinite(error_squares_)) return kNaN;
  if (error_squares_ == 0) return std::numeric_limits<double>::infinity();
  return 10 * std::log10(reference_squares_ / error_squares_);
}

double Signal::RelativeError() const {
  if (!std::isfinite(error_squares_)) return kNaN;
  return error_squares_ == 0 ? 0.0 : std::sqrt(error_squares_ / reference_squares_);
}

double Signal::Cosine() const {
  if (!std::isfinite(error_squares_)) return kNaN;
  if (reference_squares_ == 0 || value_squares_ == 0) return reference_squares_ == value_squares_ ? 1.0 : 0.0;
  return products_ / std::sqrt(reference_squares_) / std::sqrt(value_squares_);
}

void QuantiserLoss::Add(DType format, absl::Span<const float> x, absl::Span<const float> scale,
                        absl::Span<const float> y) {
  CHECK_EQ(x.size(), scale.size());
  if (x.empty()) return;
  const FormatRange range = RangeOf(format);
  QuantiserLoss piece;
  piece.elements = static_cast<int64_t>(x.size());
  piece.scale_min = piece.scale_max = scale[0];
  for (size_t i = 0; i < x.size(); ++i) {
    piece.scale_min = std::min<double>(piece.scale_min, scale[i]);
    piece.scale_max = std::max<double>(piece.scale_max, scale[i]);
    if (x[i] == 0) continue;
    ++piece.nonzero;
    piece.saturated += std::abs(x[i]) >= range.largest * (double{scale[i]} * kScaleRounding);
    piece.flushed += y[i] == 0;
    piece.subnormal += y[i] != 0 && std::abs(y[i] / scale[i]) < range.smallest_normal;
  }
  piece.noise.Add(x, y);
  Merge(piece);
}

void QuantiserLoss::Merge(const QuantiserLoss& other) {
  if (other.elements == 0) return;
  scale_min = elements == 0 ? other.scale_min : std::min(scale_min, other.scale_min);
  scale_max = elements == 0 ? other.scale_max : std::max(scale_max, other.scale_max);
  elements += other.elements;
  nonzero += other.nonzero;
  saturated += other.saturated;
  flushed += other.flushed;
  subnormal += other.subnormal;
  noise.Merge(other.noise);
}

std::vector<float> ReadElements(const Operand& x, int64_t stack, const Segments& segments, std::vector<float>* scales) {
  const ConstView& values = x.values;
  std::vector<float> elements(values.elements());
  if (scales != nullptr) scales->assign(values.elements(), 1.0f);
  std::vector<int64_t> scale_row;
  if (x.quantised()) scale_row = ScaleRowOf(x, stack, segments);
  for (int64_t r = 0; r < values.rows; ++r) {
    float* row = elements.data() + r * values.cols;
    if (!x.quantised()) {
      DecodeRow(values, r, row);
      continue;
    }
    if (scale_row[r] < 0) continue;
    DecodeRow(values, r, row);
    const float* scale = x.scales.as<float>(scale_row[r]);
    for (int64_t c = 0; c < values.cols; ++c) {
      const float s = scale[c / x.tile.cols];
      row[c] *= s;
      if (scales != nullptr) (*scales)[r * values.cols + c] = s;
    }
  }
  return elements;
}

}  // namespace shoestring
