// Named choices of precision: each is the DeepSeek-V3 report's recipe with few things changed, so that what one of them
// costs is seen alone.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "configs/schema/precision.pb.h"

namespace shoestring {

struct PrecisionPreset {
  std::string name;
  std::string summary;  // a line
  config::PrecisionConfig precision;
};

// The report's FP8 recipe (sections 3.3.1 to 3.3.3), as configs/presets/fp8_v3.textproto says it.
config::PrecisionConfig ReportPrecision();

// BF16, the report's recipe, and its variants.
std::vector<PrecisionPreset> AllPrecisionPresets();

// "NAME": one of those; or "NAME:path=value,path=value": the report's recipe with fields of `precision` set anew, such
// as "mine:fp8.gradient_format=E5M2". INVALID_ARGUMENT, one line. Whether the result is legal is for the validator.
absl::StatusOr<PrecisionPreset> ParsePrecisionPreset(absl::string_view text);

}  // namespace shoestring
