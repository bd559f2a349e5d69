// Bodies of problems and of the places they name.
#include "configs/problem.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace shoestring::config {
namespace {

// The message around a field: "a.b[2].c" -> "a.b[2]" -> "a.b" -> "a" -> "".
absl::string_view Parent(absl::string_view path) {
  const size_t end = path.find_last_of(".[");
  return end == absl::string_view::npos ? absl::string_view() : path.substr(0, end);
}

}  // namespace

std::string Problem::ToString() const {
  std::string line;
  for (const std::string& part : {place, field}) {
    if (!part.empty()) absl::StrAppend(&line, part, ": ");
  }
  absl::StrAppend(&line, problem);
  if (!hint.empty()) absl::StrAppend(&line, "; ", hint);
  return line;
}

absl::Status ProblemsToStatus(const std::vector<Problem>& problems) {
  std::string lines;
  for (const Problem& problem : problems) {
    absl::StrAppend(&lines, lines.empty() ? "" : "\n", problem.ToString());
  }
  return problems.empty() ? absl::OkStatus() : absl::InvalidArgumentError(lines);
}

void Locations::Erase(const std::string& path) {
  auto it = places_.lower_bound(path);
  while (it != places_.end() && absl::StartsWith(it->first, path)) {
    const char next = it->first.size() == path.size() ? '\0' : it->first[path.size()];
    it = next == '\0' || next == '.' || next == '[' ? places_.erase(it) : std::next(it);
  }
}

std::string Locations::Find(absl::string_view path) const {
  for (; !path.empty(); path = Parent(path)) {
    const auto it = places_.find(std::string(path));
    if (it != places_.end()) return it->second;
  }
  return default_place_;
}

}  // namespace shoestring::config
