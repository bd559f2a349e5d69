// Bodies of the suggestions for misspelt names.
#include "configs/suggest.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "configs/schema/run.pb.h"

namespace shoestring::config {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

// Path of the first message in the schema that has a field of this name, nearest to the root first; "?" when none has.
std::string PathOfOwner(absl::string_view name) {
  std::vector<std::pair<const Descriptor*, std::string>> queue = {{RunConfig::descriptor(), ""}};
  for (size_t i = 0; i < queue.size() && i < 1000; ++i) {
    const auto [type, path] = queue[i];
    if (type->FindFieldByName(std::string(name)) != nullptr) return path;
    for (int f = 0; f < type->field_count(); ++f) {
      const FieldDescriptor* field = type->field(f);
      if (field->message_type() == nullptr) continue;
      queue.emplace_back(field->message_type(), path.empty() ? field->name() : absl::StrCat(path, ".", field->name()));
    }
  }
  return "?";
}

}  // namespace

int EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<std::vector<int>> d(a.size() + 1, std::vector<int>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = static_cast<int>(i + j);
        continue;
      }
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

std::string Nearest(absl::string_view word, const std::vector<std::string>& candidates) {
  if (word.size() > 100) return "";
  int best = std::max(2, static_cast<int>(word.size()) / 3) + 1;
  std::string nearest;
  for (const std::string& candidate : candidates) {
    const int distance = EditDistance(absl::AsciiStrToLower(word), absl::AsciiStrToLower(candidate));
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

std::string UnknownFieldHint(const Descriptor& type, absl::string_view name) {
  std::vector<std::string> fields;
  for (int i = 0; i < type.field_count(); ++i) fields.push_back(type.field(i)->name());
  const std::string owner = PathOfOwner(name);
  if (owner.empty()) return "it is a field of the run itself";
  if (owner != "?") return absl::StrCat("it is a field of ", owner);
  const std::string nearest = Nearest(name, fields);
  if (!nearest.empty()) return absl::StrCat("did you mean ", nearest, "?");
  return absl::StrCat("it has: ", fields.empty() ? "nothing" : absl::StrJoin(fields, ", "));
}

std::string UnknownEnumHint(const google::protobuf::EnumDescriptor& type, absl::string_view name) {
  std::vector<std::string> values;
  for (int i = 0; i < type.value_count(); ++i) values.push_back(type.value(i)->name());
  const std::string nearest = Nearest(name, values);
  return nearest.empty() ? absl::StrCat("one of ", absl::StrJoin(values, ", "))
                         : absl::StrCat("did you mean ", nearest, "?");
}

}  // namespace shoestring::config
