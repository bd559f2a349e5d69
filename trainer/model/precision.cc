// Reads the recipe of the config, and finds room for what it quantises.
#include "trainer/model/precision.h"

namespace shoestring {
namespace {

Tile MakeTile(const config::Tile& tile) { return {tile.rows(), tile.columns()}; }

DType MakeDType(config::Fp8Recipe::Format format) {
  switch (format) {
    case config::Fp8Recipe::BF16: return DType::kBF16;
    case config::Fp8Recipe::E4M3: return DType::kE4M3;
    case config::Fp8Recipe::E5M2: return DType::kE5M2;
    case config::Fp8Recipe::E5M6: return DType::kE5M6;
  }
  CHECK(false);
  return DType::kBF16;
}

OperandFormat MakeFormat(config::Fp8Recipe::Format format, const config::Tile& tile, bool power_of_two) {
  const DType dtype = MakeDType(format);
  if (!IsQuantised(dtype)) return {dtype, {}, false};
  return {dtype, MakeTile(tile), power_of_two};
}

}  // namespace

PrecisionFormats MakePrecisionFormats(const config::PrecisionConfig& precision, DType act) {
  PrecisionFormats formats;
  if (precision.mode() != config::PrecisionConfig::FP8) {
    const OperandFormat plain = {act, {}, false};
    formats.activation = formats.weight = formats.gradient = plain;
    formats.activation_by_tokens = formats.gradient_by_tokens = plain;
    formats.cached_linear_input = formats.cached_attention_output = formats.cached_swiglu_input = plain;
    formats.dispatch = formats.dispatch_gradient = plain;
    return formats;
  }
  const config::Fp8Recipe& r = precision.fp8();
  const config::Tile& tile = r.activation_tile();
  const config::Tile& by_tokens = r.weight_gradient_tile();
  formats.activation = MakeFormat(r.activation_format(), tile, r.power_of_two_activation());
  formats.weight = MakeFormat(r.weight_format(), r.weight_tile(), r.power_of_two_weight());
  formats.gradient = MakeFormat(r.gradient_format(), r.gradient_tile(), r.power_of_two_gradient());
  formats.activation_by_tokens = MakeFormat(r.activation_format(), by_tokens, r.power_of_two_activation());
  formats.gradient_by_tokens = MakeFormat(r.gradient_format(), by_tokens, r.power_of_two_gradient());
  formats.cached_linear_input = MakeFormat(r.cached_linear_input(), tile, r.power_of_two_activation());
  formats.cached_attention_output = MakeFormat(r.cached_attention_output(), tile, r.power_of_two_attention_output());
  formats.cached_swiglu_input = MakeFormat(r.cached_swiglu_input(), tile, r.power_of_two_activation());
  formats.dispatch = MakeFormat(r.dispatch_format(), tile, r.power_of_two_dispatch());
  formats.dispatch_gradient =
      MakeFormat(r.dispatch_gradient_format(), r.gradient_tile(), r.power_of_two_dispatch_gradient());
  formats.accumulation = {r.promotion_interval(), r.accumulation() == config::Fp8Recipe::ACCUMULATE_HOPPER};
  return formats;
}

MutableOperand AllocateOperand(Arena& arena, Purpose purpose, absl::string_view name, const OperandFormat& format,
                               int64_t rows, int64_t cols, int64_t stack, int64_t groups) {
  const View values = arena.Allocate(purpose, name, format.dtype, rows, cols);
  if (!format.quantised()) return values;
  // Only tiles higher than a row care where segments begin.
  const int64_t scale_rows = groups > 0 && format.tile.rows > 1 ? SegmentScaleRows(format.tile, rows, groups)
                                                                : ScaleRows(format.tile, rows, stack);
  const View scales = arena.Allocate(purpose, name, DType::kF32, scale_rows, ScaleColumns(format.tile, cols));
  return {values, scales, format.tile, format.power_of_two};
}

int64_t RowBytes(const OperandFormat& format, int64_t cols) {
  const int64_t values = BytesOf(format.dtype, cols);
  return format.quantised() ? values + ScaleColumns(format.tile, cols) * SizeOf(DType::kF32) : values;
}

}  // namespace shoestring
