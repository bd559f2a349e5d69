// Body of the field options in words.
#include "configs/field_rules.h"

#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "configs/schema/options.pb.h"

namespace shoestring::config {
namespace {

// All digits of a whole number: six of them name another bound.
std::string BoundText(double bound) {
  const bool whole = std::abs(bound) < 0x1p63 && bound == std::trunc(bound);
  return whole ? absl::StrCat(static_cast<int64_t>(bound)) : absl::StrCat(bound);
}

}  // namespace

std::string BoundsText(const google::protobuf::FieldOptions& options) {
  std::string text;
  const auto add = [&](bool has, absl::string_view words, double bound) {
    if (has) absl::StrAppend(&text, text.empty() ? "" : " and ", words, " ", BoundText(bound));
  };
  add(options.HasExtension(min), "at least", options.GetExtension(min));
  add(options.HasExtension(above), "above", options.GetExtension(above));
  add(options.HasExtension(max), "at most", options.GetExtension(max));
  add(options.HasExtension(below), "below", options.GetExtension(below));
  return text;
}

}  // namespace shoestring::config
