// Learns a byte-level BPE vocabulary: counts words of a corpus, then merges the most frequent pair again and again.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "data/pre_tokenizer.h"
#include "data/tokenizer_spec.h"

namespace shoestring {

// Word (bytes of a pre-token) to how often it occurs.
using WordCounts = absl::flat_hash_map<std::string, int64_t>;

// Counts the pre-tokens of documents. The result depends on the documents alone, not on threads or batches.
class WordCounter {
 public:
  // `pre_tokenizer` must outlive the counter; `threads` >= 1.
  WordCounter(const PreTokenizer* pre_tokenizer, int threads);

  // Adds the words of `documents`, in parallel. A document is cut at the ends of lines into parts of about 1 MiB; such
  // a cut counts as an end of text. INVALID_ARGUMENT "document 3: invalid UTF-8 at byte ..." for the first malformed
  // document, and then nothing is added.
  absl::Status Add(absl::Span<const absl::string_view> documents);

  const WordCounts& counts() const { return counts_; }

 private:
  const PreTokenizer* pre_tokenizer_;
  int threads_;
  WordCounts counts_;
};

struct BpeTrainOptions {
  int32_t vocab_size = 0;                                               // all tokens: special ones, 256 bytes, merges
  std::vector<std::string> special_tokens = DeepSeekV3SpecialTokens();  // ids 0, 1, ...
  std::vector<std::string> patterns = DeepSeekV3Patterns();             // those that the words were counted with
  // Called with the number of tokens so far and vocab_size, a few hundred times.
  std::function<void(int64_t done, int64_t total)> progress = nullptr;
};

// The vocabulary: special tokens, bytes in the order of the byte alphabet, merges. The most frequent pair is merged
// first; of equally frequent ones that with the lower left id, then the lower right id; a pair that makes a known token
// again (by another way) adds a merge and no token. INVALID_ARGUMENT if vocab_size or the special tokens are
// impossible; FAILED_PRECONDITION, with the size that can be reached, if the words run out of pairs.
absl::StatusOr<TokenizerSpec> TrainBpe(const WordCounts& words, const BpeTrainOptions& options);

}  // namespace shoestring
