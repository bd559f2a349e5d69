// Fill in the middle: turns a document into prefix, suffix, middle, by a decision that depends on the document's id
// alone.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace shoestring {

// Views into the document. The training order is: fim_begin prefix fim_hole suffix fim_end middle eos
// (DeepSeek-V3 report, section 4.1; DeepSeek-Coder-V2).
struct FimSplit {
  bool applied = false;
  absl::string_view prefix, middle, suffix;
};

// Applies to a share `rate` of the documents. The two cut points are uniform over the positions between characters
// (code points), both ends included, and never fall inside a character; so any part may be empty. `text` must be UTF-8.
// A pure function of its arguments.
FimSplit SplitForFim(absl::string_view text, uint64_t seed, int64_t document_id, double rate);

}  // namespace shoestring
