// Body of the diff: both configs are flattened to lists of (path, text), which are compared.
#include "configs/diff.h"

#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file_system.h"
#include "configs/print.h"
#include "configs/schema/options.pb.h"
#include "configs/walk.h"
#include "google/protobuf/descriptor.h"

namespace shoestring::config {
namespace {

struct Leaf {
  std::string text;
  bool operational;
  std::string numerics_text;  // what the numerics hash sees: of a path, the last component
};

struct Leaves {
  std::vector<std::string> order;
  std::map<std::string, Leaf> by_path;
};

// Scalars, and messages without content (the choices of a oneof).
Leaves Flatten(const RunConfig& config) {
  Leaves leaves;
  std::string operational_parent;
  Walk(config, [&](const FieldValue& value) {
    const bool inherited = !operational_parent.empty() && absl::StartsWith(value.path, operational_parent);
    const bool is_operational = inherited || value.field.options().GetExtension(operational);
    const bool is_message = value.field.cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE;
    if (is_message && is_operational && !inherited) operational_parent = value.path + ".";
    std::vector<const google::protobuf::FieldDescriptor*> contents;
    if (is_message) SubMessage(value).GetReflection()->ListFields(SubMessage(value), &contents);
    if (is_message && !contents.empty()) return true;
    leaves.order.push_back(value.path);
    const std::string text = is_message ? "{}" : ScalarText(value);
    const bool is_path = value.field.options().GetExtension(path);
    leaves.by_path[value.path] = {text, is_operational, is_path ? BaseName(text.substr(1)) : text};  // after the quote
    return true;
  });
  return leaves;
}

bool ChangesNumerics(const Leaf& before, const Leaf& after) {
  return !before.operational && before.numerics_text != after.numerics_text;
}

}  // namespace

std::string Difference::ToString() const {
  return absl::StrCat(numerics ? "numerics  " : "run only  ", field, ": ", before.empty() ? "(not set)" : before,
                      " -> ", after.empty() ? "(not set)" : after);
}

std::vector<Difference> Diff(const RunConfig& before, const RunConfig& after) {
  RunConfig old_config = before;
  RunConfig new_config = after;
  FillDefaults(old_config);
  FillDefaults(new_config);
  const Leaves olds = Flatten(old_config);
  const Leaves news = Flatten(new_config);
  std::vector<Difference> differences;
  for (const std::string& field : olds.order) {
    const Leaf& old_leaf = olds.by_path.at(field);
    const auto it = news.by_path.find(field);
    if (it == news.by_path.end()) {
      differences.push_back({field, old_leaf.text, "", !old_leaf.operational});
    } else if (it->second.text != old_leaf.text) {
      differences.push_back({field, old_leaf.text, it->second.text, ChangesNumerics(old_leaf, it->second)});
    }
  }
  for (const std::string& field : news.order) {
    if (olds.by_path.count(field) > 0) continue;
    const Leaf& leaf = news.by_path.at(field);
    differences.push_back({field, "", leaf.text, !leaf.operational});
  }
  return differences;
}

}  // namespace shoestring::config
