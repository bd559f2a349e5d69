// Counts words in parallel: documents are cut into parts, threads take parts in turn, their counts are added.
#include <atomic>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "base/threads.h"
#include "data/bpe_train.h"
#include "data/utf8.h"

namespace shoestring {
namespace {

constexpr size_t kPartBytes = size_t{1} << 20;

// Where the first part of `text` ends: after a line break that an ASCII letter follows, where DeepSeek-V3's patterns
// always cut, so that the parts have the words of the whole.
size_t EndOfFirstPart(absl::string_view text) {
  for (size_t i = kPartBytes; i < text.size(); ++i) {
    if (text[i - 1] == '\n' && absl::ascii_isalpha(text[i])) return i;
  }
  return text.size();
}

std::vector<absl::string_view> CutIntoParts(absl::Span<const absl::string_view> documents) {
  std::vector<absl::string_view> parts;
  for (absl::string_view rest : documents) {
    while (!rest.empty()) {
      const size_t size = EndOfFirstPart(rest);
      parts.push_back(rest.substr(0, size));
      rest.remove_prefix(size);
    }
  }
  return parts;
}

void AddCounts(const WordCounts& from, WordCounts* into) {
  for (const auto& [word, count] : from) (*into)[word] += count;
}

// What one thread has counted, and the first fault it met.
struct Share {
  WordCounts counts;
  absl::Status status;
};

void CountParts(const PreTokenizer& pre_tokenizer, const std::vector<absl::string_view>& parts,
                std::atomic<size_t>& next_part, Share& share) {
  PreTokenizer::Scratch scratch;
  for (size_t i = next_part++; i < parts.size(); i = next_part++) {
    const absl::Status status =
        pre_tokenizer.Split(parts[i], scratch, [&share](absl::string_view word) { ++share.counts[word]; });
    if (!status.ok() && share.status.ok()) share.status = status;
  }
}

}  // namespace

WordCounter::WordCounter(const PreTokenizer* pre_tokenizer, int threads)
    : pre_tokenizer_(pre_tokenizer), threads_(threads) {
  CHECK_GE(threads, 1);
}

absl::Status WordCounter::Add(absl::Span<const absl::string_view> documents) {
  for (size_t i = 0; i < documents.size(); ++i) {
    RETURN_IF_ERROR(WithContext(CheckUtf8(documents[i]), absl::StrCat("document ", i)));
  }
  const std::vector<absl::string_view> parts = CutIntoParts(documents);
  std::vector<Share> shares(threads_);
  std::atomic<size_t> next_part = 0;
  std::vector<std::thread> threads =
      StartThreads(threads_ - 1, [&](int i) { CountParts(*pre_tokenizer_, parts, next_part, shares[i + 1]); });
  CountParts(*pre_tokenizer_, parts, next_part, shares[0]);
  for (std::thread& thread : threads) thread.join();
  for (const Share& share : shares) RETURN_IF_ERROR(share.status);
  for (const Share& share : shares) AddCounts(share.counts, &counts_);
  return absl::OkStatus();
}

}  // namespace shoestring
