// Finds added tokens ("<｜end▁of▁sentence｜>") in text: leftmost first, longest first.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace shoestring {

// Immutable after the last Add(); then thread-safe.
class AddedTokenMatcher {
 public:
  struct Match {
    size_t begin = absl::string_view::npos;  // npos: none
    size_t end = absl::string_view::npos;
    int32_t id = -1;
  };

  // `content` is not empty and not added before.
  void Add(absl::string_view content, int32_t id);

  // The first match in `text` at or after `from`; of several that begin there the longest.
  Match Find(absl::string_view text, size_t from) const;

 private:
  absl::flat_hash_map<std::string, int32_t> ids_;
  std::array<std::vector<size_t>, 256> lengths_;  // by first byte: lengths of contents, descending, without repeats
};

}  // namespace shoestring
