// The tokenizer's encoder and decoder.
#include "data/tokenizer.h"

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "data/utf8.h"

namespace shoestring {
namespace {

constexpr size_t kCachedWords = size_t{1} << 16;
constexpr size_t kLongestCachedWord = 64;  // bytes; longer ones hardly ever come back

std::array<int32_t, 256> ByteIds(const TokenizerSpec& spec) {
  std::array<int32_t, 256> ids;
  ids.fill(-1);
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    const TokenizerToken& token = spec.tokens[id];
    if (token.bytes.size() != 1 || !token.in_model || token.special) continue;
    ids[static_cast<uint8_t>(token.bytes[0])] = static_cast<int32_t>(id);
  }
  for (const int32_t id : ids) CHECK_GE(id, 0);
  return ids;
}

}  // namespace

// What one call of Encode works with. The cache lives on, and with it what was learnt of the language.
struct Tokenizer::Scratch {
  PreTokenizer::Scratch split;
  BpeMerger::Scratch merge;
  BpeWordCache cache{kCachedWords};
};

// Lends scratch memory to callers, one each: a lock a text, none a word. Holds as many as were ever in use at once.
class Tokenizer::ScratchPool {
 public:
  std::unique_ptr<Scratch> Borrow() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!idle_.empty()) {
        std::unique_ptr<Scratch> scratch = std::move(idle_.back());
        idle_.pop_back();
        return scratch;
      }
    }
    return std::make_unique<Scratch>();
  }
  void Return(std::unique_ptr<Scratch> scratch) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(scratch));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> idle_;
};

Tokenizer::Tokenizer(Tokenizer&&) = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) = default;
Tokenizer::~Tokenizer() = default;

Tokenizer::Tokenizer(TokenizerSpec spec, PreTokenizer pre_tokenizer)
    : spec_(std::move(spec)),
      pre_tokenizer_(std::move(pre_tokenizer)),
      merger_(ByteIds(spec_), spec_.merges),
      fingerprint_(FingerprintTokenizer(spec_)),
      pool_(std::make_unique<ScratchPool>()) {
  IndexAddedTokens();
}

absl::StatusOr<Tokenizer> Tokenizer::Parse(absl::string_view json) {
  ASSIGN_OR_RETURN(TokenizerSpec spec, ParseTokenizerJson(json));
  return Create(std::move(spec));
}

absl::StatusOr<Tokenizer> Tokenizer::Load(FileSystem& fs, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string json, ReadFile(fs, path, kMaxTokenizerJsonBytes));
  absl::StatusOr<Tokenizer> tokenizer = Parse(json);
  if (!tokenizer.ok()) return WithContext(tokenizer.status(), path);
  return tokenizer;
}

absl::StatusOr<Tokenizer> Tokenizer::Create(TokenizerSpec spec) {
  absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::Create(spec.patterns);
  if (!pre_tokenizer.ok()) return WithContext(pre_tokenizer.status(), "pre_tokenizer");
  Tokenizer tokenizer(std::move(spec), *std::move(pre_tokenizer));
  RETURN_IF_ERROR(tokenizer.FindSplittableTokens());
  return tokenizer;
}

void Tokenizer::IndexAddedTokens() {
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const TokenizerToken& token = spec_.tokens[id];
    if (spec_.ignore_merges && token.in_model && !token.special) whole_words_.emplace(token.bytes, id);
    if (!token.added) continue;
    added_ids_.emplace(token.bytes, id);
    matchers_[true][token.normalized].Add(token.bytes, id);
    if (!token.special) matchers_[false][token.normalized].Add(token.bytes, id);
  }
  const std::vector<std::string> names = DeepSeekV3SpecialTokens();
  const std::array<int32_t*, 6> ids = {&special_ids_.bos,      &special_ids_.eos,       &special_ids_.pad,
                                       &special_ids_.fim_hole, &special_ids_.fim_begin, &special_ids_.fim_end};
  CHECK_EQ(names.size(), ids.size());
  for (size_t i = 0; i < names.size(); ++i) *ids[i] = AddedTokenId(names[i]).value_or(-1);
}

absl::Status Tokenizer::FindSplittableTokens() {
  ASSIGN_OR_RETURN(const Regex punctuation, Regex::Compile(R"(\A ?[\p{P}\p{S}]+(?=[\r\n]+\z))"));
  Scratch scratch;
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const TokenizerToken& token = spec_.tokens[id];
    if (token.added || FindInvalidUtf8(token.bytes) != token.bytes.size()) continue;
    size_t begin = 0, end = 0;
    if (punctuation.Find(token.bytes, 0, scratch.split.regex, &begin, &end) != FindResult::kFound) continue;
    const absl::string_view bytes = token.bytes;
    std::vector<int32_t> parts;
    EncodeWord(bytes.substr(0, end), scratch, &parts);
    EncodeWord(bytes.substr(end), scratch, &parts);
    split_ids_.emplace(id, std::move(parts));
  }
  return absl::OkStatus();
}

std::string Tokenizer::ToJson() const { return PrintTokenizerJson(spec_); }

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text, const EncodeOptions& options) const {
  RETURN_IF_ERROR(CheckUtf8(text));
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3);
  std::unique_ptr<Scratch> scratch = pool_->Borrow();
  const absl::Status status = EncodePart(text, options, /*normalized=*/false, *scratch, &ids);
  pool_->Return(std::move(scratch));
  RETURN_IF_ERROR(status);
  return ids;
}

// Cuts the added tokens with this `normalized` out of `text`; what lies between goes on to those with the flag, then to
// words.
absl::Status Tokenizer::EncodePart(absl::string_view text, const EncodeOptions& options, bool normalized,
                                   Scratch& scratch, std::vector<int32_t>* out) const {
  const auto encode_rest = [&](absl::string_view rest) {
    if (!normalized) return EncodePart(rest, options, /*normalized=*/true, scratch, out);
    return pre_tokenizer_.Split(rest, scratch.split, [&](absl::string_view word) { EncodeWord(word, scratch, out); });
  };
  const AddedTokenMatcher& matcher = matchers_[options.allow_special][normalized];
  size_t position = 0;
  while (true) {
    const AddedTokenMatcher::Match match = matcher.Find(text, position);
    if (match.id < 0) return encode_rest(text.substr(position));
    RETURN_IF_ERROR(encode_rest(text.substr(position, match.begin - position)));
    out->push_back(match.id);
    position = match.end;
  }
}

void Tokenizer::EncodeWord(absl::string_view word, Scratch& scratch, std::vector<int32_t>* out) const {
  if (spec_.ignore_merges) {
    const auto found = whole_words_.find(word);
    if (found != whole_words_.end()) {
      out->push_back(found->second);
      return;
    }
  }
  if (word.size() > kLongestCachedWord) {
    merger_.Encode(word, scratch.merge, out);
    return;
  }
  if (scratch.cache.Append(word, out)) return;
  const size_t before = out->size();
  merger_.Encode(word, scratch.merge, out);
  scratch.cache.Insert(word, absl::MakeConstSpan(*out).subspan(before));
}

absl::StatusOr<std::string> Tokenizer::Decode(absl::Span<const int32_t> ids) const {
  std::string text;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size()) {
      return absl::OutOfRangeError(
          absl::StrCat("token ", i, ": the id ", ids[i], " is not in a vocabulary of ", vocab_size()));
    }
    text += spec_.tokens[ids[i]].bytes;
  }
  return text;
}

std::vector<int32_t> Tokenizer::SplitMergedTokens(absl::Span<const int32_t> ids, double rate, const Rng& rng) const {
  std::vector<int32_t> result;
  result.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto parts = split_ids_.find(ids[i]);
    if (parts != split_ids_.end() && rng.Uniform(i) < rate) {
      result.insert(result.end(), parts->second.begin(), parts->second.end());
    } else {
      result.push_back(ids[i]);
    }
  }
  return result;
}

absl::string_view Tokenizer::TokenBytes(int32_t id) const {
  CHECK_GE(id, 0);
  CHECK_LT(id, vocab_size());
  return spec_.tokens[id].bytes;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  CHECK_GE(id, 0);
  CHECK_LT(id, vocab_size());
  return spec_.tokens[id].special;
}

std::optional<int32_t> Tokenizer::AddedTokenId(absl::string_view content) const {
  const auto found = added_ids_.find(content);
  if (found == added_ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace shoestring
