// The table of presets, as changes of one recipe.
#include "trainer/numerics/presets.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "configs/override.h"
#include "configs/problem.h"
#include "configs/suggest.h"
#include "google/protobuf/text_format.h"

namespace shoestring {
namespace {

constexpr const char* kReport = R"(
  mode: FP8
  moments: MOMENTS_BF16
  fp8 {
    activation_format: E4M3 weight_format: E4M3 gradient_format: E4M3
    activation_tile { rows: 1 columns: 128 } weight_tile { rows: 128 columns: 128 }
    gradient_tile { rows: 1 columns: 128 } weight_gradient_tile { rows: 128 columns: 1 }
    promotion_interval: 128 accumulation: ACCUMULATE_FP32
    power_of_two_activation: false power_of_two_weight: false power_of_two_gradient: false
    power_of_two_attention_output: true power_of_two_dispatch: true power_of_two_dispatch_gradient: true
    cached_linear_input: E4M3 cached_attention_output: E5M6 cached_swiglu_input: E4M3
    dispatch_format: E4M3 dispatch_gradient_format: E4M3 combine_format: BF16
  })";

// Fields of the recipe that a preset sets anew.
struct Variant {
  const char* name;
  const char* summary;
  const char* fp8;
};

constexpr Variant kVariants[] = {
    {"fp8", "the report's recipe", ""},
    {"fp8-pow2", "every scale a power of two",
     "power_of_two_activation: true power_of_two_weight: true power_of_two_gradient: true"},
    {"fp8-e5m2", "gradients in E5M2, also when dispatched", "gradient_format: E5M2 dispatch_gradient_format: E5M2"},
    {"fp8-coarse", "one scale for 4096 channels of a token, 4096 x 4096 of a weight, 4096 tokens of a channel",
     "activation_tile { columns: 4096 } gradient_tile { columns: 4096 } weight_tile { rows: 4096 columns: 4096 } "
     "weight_gradient_tile { rows: 4096 }"},
    {"fp8-hopper", "Hopper's short accumulator, promoted each 128 products", "accumulation: ACCUMULATE_HOPPER"},
    {"fp8-hopper-384", "Hopper's short accumulator, promoted each 384 products only; tiles of 384",
     "accumulation: ACCUMULATE_HOPPER promotion_interval: 384 activation_tile { columns: 384 } "
     "gradient_tile { columns: 384 } weight_tile { rows: 384 columns: 384 } weight_gradient_tile { rows: 384 }"},
    {"fp8-cache-bf16", "what is kept for backward in BF16",
     "cached_linear_input: BF16 cached_attention_output: BF16 cached_swiglu_input: BF16"},
};

config::PrecisionConfig Parse(const char* text) {
  config::PrecisionConfig precision;
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &precision));
  return precision;
}

absl::StatusOr<PrecisionPreset> ParseOwn(const std::string& name, absl::string_view changes) {
  config::RunConfig config;
  *config.mutable_precision() = ReportPrecision();
  config::Locations locations;
  std::vector<config::Problem> problems;
  for (const absl::string_view change : absl::StrSplit(changes, ',')) {
    config::ApplyOverride(absl::StrCat("precision.", change), config, locations, problems);
    if (problems.empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat("--preset ", name, ": ", problems[0].ToString()));
  }
  return PrecisionPreset{name, std::string(changes), config.precision()};
}

}  // namespace

config::PrecisionConfig ReportPrecision() { return Parse(kReport); }

std::vector<PrecisionPreset> AllPrecisionPresets() {
  std::vector<PrecisionPreset> presets;
  presets.push_back({"bf16", "no FP8: BF16 operands", Parse("mode: BF16 moments: MOMENTS_BF16")});
  for (const Variant& variant : kVariants) {
    PrecisionPreset preset{variant.name, variant.summary, ReportPrecision()};
    config::Fp8Recipe changes;
    CHECK(google::protobuf::TextFormat::ParseFromString(variant.fp8, &changes));
    preset.precision.mutable_fp8()->MergeFrom(changes);
    presets.push_back(std::move(preset));
  }
  return presets;
}

absl::StatusOr<PrecisionPreset> ParsePrecisionPreset(absl::string_view text) {
  const size_t colon = text.find(':');
  if (colon != absl::string_view::npos && colon > 0) {
    return ParseOwn(std::string(text.substr(0, colon)), text.substr(colon + 1));
  }
  std::vector<std::string> names;
  for (PrecisionPreset& preset : AllPrecisionPresets()) {
    if (preset.name == text) return std::move(preset);
    names.push_back(preset.name);
  }
  const std::string nearest = config::Nearest(text, names);
  const std::string hint = nearest.empty() ? "" : absl::StrCat(", did you mean '", nearest, "'?");
  return absl::InvalidArgumentError(absl::StrCat("--preset ", text, ": is no preset", hint, "; there are ",
                                                 absl::StrJoin(names, ", "), ", and NAME:path=value,... of your own"));
}

}  // namespace shoestring
