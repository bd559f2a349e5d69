// The BPE trainer: pairs with their places in one array of symbols, and a heap whose stale entries are mended when met.
#include "data/bpe_train.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <queue>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "data/bpe_alphabet.h"
#include "data/utf8.h"

namespace shoestring {
namespace {

using Pair = std::pair<int32_t, int32_t>;

// All words one after the other. Symbols of a word are a list linked by index; a merge swallows the right one.
struct Symbol {
  int32_t id = -1;  // -1: swallowed
  uint32_t previous = 0;
  uint32_t next = 0;
  uint32_t word = 0;
};
constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

struct PairState {
  int64_t count = 0;
  std::vector<uint32_t> places;  // of the left symbol; may hold stale ones, never lacks a true one
};

// A pair as it was counted when it was put into the heap.
struct Candidate {
  int64_t count;
  Pair pair;
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

class Trainer {
 public:
  Trainer(const WordCounts& words, TokenizerSpec* spec);

  // Merges the best pair. False if no pair is left.
  bool Step();

 private:
  void AddWord(absl::string_view bytes, int64_t count, const std::array<int32_t, 256>& byte_ids);
  std::optional<Pair> PopBest();
  int32_t TokenFor(Pair pair);
  void MergeAt(uint32_t left, int32_t product);
  void Gain(uint32_t left);
  void Lose(uint32_t left);
  void PushTouched();

  TokenizerSpec* spec_;
  absl::flat_hash_map<std::string, int32_t> ids_;  // ordinary tokens by bytes
  std::vector<Symbol> symbols_;
  std::vector<int64_t> word_counts_;
  absl::flat_hash_map<Pair, PairState> pairs_;
  absl::flat_hash_set<Pair> touched_;  // pairs that gained a place in this step
  std::priority_queue<Candidate> heap_;
};

Trainer::Trainer(const WordCounts& words, TokenizerSpec* spec) : spec_(spec) {
  std::array<int32_t, 256> byte_ids;
  for (size_t id = 0; id < spec->tokens.size(); ++id) {
    const TokenizerToken& token = spec->tokens[id];
    if (token.added) continue;
    ids_.emplace(token.bytes, static_cast<int32_t>(id));
    byte_ids[static_cast<uint8_t>(token.bytes[0])] = static_cast<int32_t>(id);
  }
  for (const auto& [bytes, count] : words) AddWord(bytes, count, byte_ids);
  for (uint32_t i = 0; i < symbols_.size(); ++i) Gain(i);
  PushTouched();
}

void Trainer::AddWord(absl::string_view bytes, int64_t count, const std::array<int32_t, 256>& byte_ids) {
  CHECK_GT(count, 0);
  const uint32_t begin = static_cast<uint32_t>(symbols_.size());
  const uint32_t end = begin + static_cast<uint32_t>(bytes.size());
  for (uint32_t i = begin; i < end; ++i) {
    symbols_.push_back({byte_ids[static_cast<uint8_t>(bytes[i - begin])], i > begin ? i - 1 : kNone,
                        i + 1 < end ? i + 1 : kNone, static_cast<uint32_t>(word_counts_.size())});
  }
  word_counts_.push_back(count);
}

// The pair that begins at `left`, if any, has come to be.
void Trainer::Gain(uint32_t left) {
  if (left == kNone || symbols_[left].next == kNone) return;
  const Pair pair(symbols_[left].id, symbols_[symbols_[left].next].id);
  PairState& state = pairs_[pair];
  state.count += word_counts_[symbols_[left].word];
  state.places.push_back(left);
  touched_.insert(pair);
}

// The pair that begins at `left`, if any, is about to go; its place is left behind and recognised as stale later.
void Trainer::Lose(uint32_t left) {
  if (left == kNone || symbols_[left].next == kNone) return;
  pairs_[Pair(symbols_[left].id, symbols_[symbols_[left].next].id)].count -= word_counts_[symbols_[left].word];
}

void Trainer::PushTouched() {
  for (const Pair& pair : touched_) {
    const int64_t count = pairs_[pair].count;
    if (count > 0) heap_.push({count, pair});
  }
  touched_.clear();
}

// A pair's count only falls between pushes, so an entry is never below the truth: mending the top until it is true
// finds the best pair.
std::optional<Pair> Trainer::PopBest() {
  while (!heap_.empty()) {
    const Candidate top = heap_.top();
    heap_.pop();
    const auto state = pairs_.find(top.pair);
    const int64_t count = state == pairs_.end() ? 0 : state->second.count;
    if (count == top.count) return top.pair;
    if (count > 0) heap_.push({count, top.pair});
  }
  return std::nullopt;
}

int32_t Trainer::TokenFor(Pair pair) {
  std::string bytes = spec_->tokens[pair.first].bytes + spec_->tokens[pair.second].bytes;
  const auto [place, is_new] = ids_.emplace(bytes, static_cast<int32_t>(spec_->tokens.size()));
  if (is_new) spec_->tokens.push_back({.bytes = std::move(bytes)});
  return place->second;
}

void Trainer::MergeAt(uint32_t left, int32_t product) {
  Symbol& symbol = symbols_[left];
  const uint32_t right = symbol.next;
  Lose(symbol.previous);
  Lose(left);
  Lose(right);
  symbol.id = product;
  symbol.next = symbols_[right].next;
  symbols_[right].id = -1;
  if (symbol.next != kNone) symbols_[symbol.next].previous = left;
  Gain(symbol.previous);
  Gain(left);
}

bool Trainer::Step() {
  const std::optional<Pair> best = PopBest();
  if (!best.has_value()) return false;
  std::vector<uint32_t> places = std::move(pairs_[*best].places);
  pairs_[*best].places.clear();
  // Within a word the leftmost pair merges first ("aaa" is "aa" and "a"). Places are sorted already unless two merges
  // have made the same token.
  if (!std::is_sorted(places.begin(), places.end())) std::sort(places.begin(), places.end());
  const int32_t product = TokenFor(*best);
  spec_->merges.push_back({best->first, best->second, product});
  for (const uint32_t left : places) {
    const Symbol& symbol = symbols_[left];
    if (symbol.id != best->first || symbol.next == kNone || symbols_[symbol.next].id != best->second) continue;
    MergeAt(left, product);
  }
  PushTouched();
  return true;
}

absl::Status CheckOptions(const WordCounts& words, const BpeTrainOptions& options) {
  const size_t smallest = options.special_tokens.size() + 256;
  if (options.vocab_size < 0 || static_cast<size_t>(options.vocab_size) < smallest) {
    return absl::InvalidArgumentError(absl::StrCat("a vocabulary of ", options.vocab_size, " is below ", smallest,
                                                   ", that of 256 bytes and the special tokens"));
  }
  absl::flat_hash_set<std::string> seen;
  for (const std::string& token : options.special_tokens) {
    RETURN_IF_ERROR(WithContext(CheckUtf8(token), "special token"));
    // Spelled in the byte alphabet alone, it could be mistaken for an ordinary token in the file.
    if (UnspellBytes(token).has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("special token '", token, "' needs a character beyond U+0143 or a space, as in '<｜name｜>'"));
    }
    if (!seen.insert(token).second)
      return absl::InvalidArgumentError(absl::StrCat("special token '", token, "' twice"));
  }
  size_t bytes = 0;
  for (const auto& [word, count] : words) bytes += word.size();
  if (bytes >= kNone) {
    return absl::InvalidArgumentError(
        absl::StrCat("distinct words of ", bytes, " bytes; at most 4294967294 are supported: train on a sample"));
  }
  return absl::OkStatus();
}

TokenizerSpec FreshVocabulary(const BpeTrainOptions& options) {
  TokenizerSpec spec;
  spec.patterns = options.patterns;
  for (const std::string& token : options.special_tokens) {
    spec.tokens.push_back({.bytes = token, .added = true, .special = true});
  }
  for (const uint8_t byte : BytesInAlphabetOrder()) {
    spec.tokens.push_back({.bytes = std::string(1, static_cast<char>(byte))});
  }
  return spec;
}

}  // namespace

absl::StatusOr<TokenizerSpec> TrainBpe(const WordCounts& words, const BpeTrainOptions& options) {
  RETURN_IF_ERROR(CheckOptions(words, options));
  TokenizerSpec spec = FreshVocabulary(options);
  Trainer trainer(words, &spec);
  const int64_t total = options.vocab_size;
  const int64_t interval = std::max<int64_t>(1, total / 256);
  for (int64_t step = 0; static_cast<int64_t>(spec.tokens.size()) < total; ++step) {
    if (!trainer.Step()) {
      return absl::FailedPreconditionError(absl::StrCat("the text has pairs for a vocabulary of ", spec.tokens.size(),
                                                        " only, not of ", total, "; ask for less or give more text"));
    }
    if (options.progress && step % interval == 0) options.progress(static_cast<int64_t>(spec.tokens.size()), total);
  }
  if (options.progress) options.progress(total, total);
  return spec;
}

}  // namespace shoestring
