// The search for added tokens: a table by first byte, then one hash look-up a distinct length.
#include "data/tokenizer_added.h"

#include <algorithm>
#include <functional>

#include "base/check.h"

namespace shoestring {

void AddedTokenMatcher::Add(absl::string_view content, int32_t id) {
  CHECK(!content.empty());
  CHECK(ids_.emplace(std::string(content), id).second);
  std::vector<size_t>& lengths = lengths_[static_cast<uint8_t>(content[0])];
  const auto place = std::lower_bound(lengths.begin(), lengths.end(), content.size(), std::greater<size_t>());
  if (place == lengths.end() || *place != content.size()) lengths.insert(place, content.size());
}

AddedTokenMatcher::Match AddedTokenMatcher::Find(absl::string_view text, size_t from) const {
  if (ids_.empty()) return {};
  for (size_t begin = from; begin < text.size(); ++begin) {
    for (const size_t length : lengths_[static_cast<uint8_t>(text[begin])]) {
      if (begin + length > text.size()) continue;
      const auto found = ids_.find(text.substr(begin, length));
      if (found != ids_.end()) return {begin, begin + length, found->second};
    }
  }
  return {};
}

}  // namespace shoestring
