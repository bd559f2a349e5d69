// A strict look at markup: elements that close in order, attributes that are quoted, known entities.
#pragma once

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace shoestring {

inline int CountOf(absl::string_view what, absl::string_view text) {
  int count = 0;
  for (size_t at = text.find(what); at != absl::string_view::npos; at = text.find(what, at + what.size())) ++count;
  return count;
}

// The number that follows `key`, which follows `anchor`; -1 when there is none.
inline double NumberAfter(absl::string_view anchor, absl::string_view key, absl::string_view text) {
  const size_t from = text.find(anchor);
  const size_t at = from == absl::string_view::npos ? from : text.find(key, from);
  return at == absl::string_view::npos ? -1 : std::atof(std::string(text.substr(at + key.size(), 24)).c_str());
}

inline bool IsKnownEntity(absl::string_view text) {
  for (const absl::string_view entity : {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"}) {
    if (absl::StartsWith(text, entity)) return true;
  }
  return false;
}

// Handles one tag without its angle brackets; empty when it is right.
inline std::string CheckTag(absl::string_view tag, std::vector<std::string>& open) {
  if (CountOf("\"", tag) % 2 != 0) return "quotes do not match in <" + std::string(tag) + ">";
  if (absl::StartsWith(tag, "!DOCTYPE")) return "";
  if (absl::StartsWith(tag, "/")) {
    if (open.empty() || open.back() != tag.substr(1)) return "closes what is not open: <" + std::string(tag) + ">";
    open.pop_back();
    return "";
  }
  if (!absl::EndsWith(tag, "/")) open.emplace_back(tag.substr(0, tag.find(' ')));
  return "";
}

// The first problem of well-formed XML (a doctype may come first); empty when there is none.
inline std::string FindMarkupProblem(absl::string_view text) {
  std::vector<std::string> open;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '&' && !IsKnownEntity(text.substr(i))) return "bare & at " + std::string(text.substr(i, 30));
    if (text[i] == '>') return "bare > at " + std::string(text.substr(i, 30));
    if (text[i] != '<') continue;
    const size_t end = text.find('>', i);
    if (end == absl::string_view::npos) return "a tag without end";
    const std::string problem = CheckTag(text.substr(i + 1, end - i - 1), open);
    if (!problem.empty()) return problem;
    i = end;
  }
  return open.empty() ? "" : "left open: " + open.back();
}

}  // namespace shoestring
