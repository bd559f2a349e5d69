// Body of the field options in words.
#include "configs/field_rules.h"

#include "absl/strings/str_cat.h"
#include "configs/schema/options.pb.h"

namespace shoestring::config {

std::string BoundsText(const google::protobuf::FieldOptions& options) {
  std::string text;
  const auto add = [&](bool has, absl::string_view words, double bound) {
    if (has) absl::StrAppend(&text, text.empty() ? "" : " and ", words, " ", bound);
  };
  add(options.HasExtension(min), "at least", options.GetExtension(min));
  add(options.HasExtension(above), "above", options.GetExtension(above));
  add(options.HasExtension(max), "at most", options.GetExtension(max));
  add(options.HasExtension(below), "below", options.GetExtension(below));
  return text;
}

}  // namespace shoestring::config
