// The tokenizer: text to token ids and back, byte-level BPE as tokenizer.json describes it (docs/formats/tokenizer.md).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/file_system.h"
#include "base/rng.h"
#include "data/bpe.h"
#include "data/pre_tokenizer.h"
#include "data/tokenizer_added.h"
#include "data/tokenizer_spec.h"

namespace shoestring {

struct EncodeOptions {
  // Whether special tokens written in the text become their ids. Off for corpora: a document must not forge its end.
  bool allow_special = false;
};

// Ids of the special tokens that the trainer's data needs, by DeepSeek-V3's names; -1 for one that the tokenizer lacks.
struct SpecialIds {
  int32_t bos = -1;
  int32_t eos = -1;
  int32_t pad = -1;
  int32_t fim_hole = -1;
  int32_t fim_begin = -1;
  int32_t fim_end = -1;
};

// Movable, not copyable. Const methods are thread-safe.
class Tokenizer {
 public:
  // `json` is the content of a tokenizer.json. INVALID_ARGUMENT says where and what.
  static absl::StatusOr<Tokenizer> Parse(absl::string_view json);
  // Parse() of the file at `path`, which its errors begin with. Also DATA_LOSS for more than 512 MiB; else the file
  // system's.
  static absl::StatusOr<Tokenizer> Load(FileSystem& fs, const std::string& path);
  // Of a spec that keeps the promises of tokenizer_spec.h. INVALID_ARGUMENT if a pattern is not supported.
  static absl::StatusOr<Tokenizer> Create(TokenizerSpec spec);

  Tokenizer(Tokenizer&&);
  Tokenizer& operator=(Tokenizer&&);
  ~Tokenizer();

  // A tokenizer.json; a pure function of the tokenizer.
  std::string ToJson() const;

  // Ids of `text`. INVALID_ARGUMENT: "invalid UTF-8 at byte N (0x..)", or a foreign pattern explodes on it.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text, const EncodeOptions& options = {}) const;

  // The bytes of `ids`, one after the other; not always well-formed UTF-8, since a token may hold a part of a
  // character. OUT_OF_RANGE for an id that is not in [0, vocab_size).
  absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids) const;

  // `ids` of one document, in which each token that is punctuation followed by line breaks ("!\n\n") is, with
  // probability `rate`, replaced by the tokens of its two parts ("!", "\n\n"), against the bias at the boundary of
  // lines that such tokens bring (DeepSeek-V3 section 4.1; the rate is not published). The decision on ids[i] is
  // rng.Uniform(i) < rate; `rng` is Rng(seed, RngPurpose::kTokenSplit, document).
  std::vector<int32_t> SplitMergedTokens(absl::Span<const int32_t> ids, double rate, const Rng& rng) const;

  int32_t vocab_size() const { return static_cast<int32_t>(spec_.tokens.size()); }
  // `id` in [0, vocab_size).
  absl::string_view TokenBytes(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  // The id of the added token written `content`.
  std::optional<int32_t> AddedTokenId(absl::string_view content) const;
  const SpecialIds& special_ids() const { return special_ids_; }
  // SHA-256 in hexadecimal of what the tokenizer means; independent of how its file is formatted.
  const std::string& Fingerprint() const { return fingerprint_; }
  const TokenizerSpec& spec() const { return spec_; }
  const PreTokenizer& pre_tokenizer() const { return pre_tokenizer_; }

 private:
  struct Scratch;
  class ScratchPool;

  Tokenizer(TokenizerSpec spec, PreTokenizer pre_tokenizer);
  void IndexAddedTokens();
  absl::Status FindSplittableTokens();
  absl::Status EncodePart(absl::string_view text, const EncodeOptions& options, bool normalized, Scratch& scratch,
                          std::vector<int32_t>* out) const;
  void EncodeWord(absl::string_view word, Scratch& scratch, std::vector<int32_t>* out) const;

  TokenizerSpec spec_;
  PreTokenizer pre_tokenizer_;
  BpeMerger merger_;
  absl::flat_hash_map<std::string, int32_t> whole_words_;  // of the model; filled only if merges are to be ignored
  absl::flat_hash_map<std::string, int32_t> added_ids_;
  std::array<std::array<AddedTokenMatcher, 2>, 2> matchers_;      // [allow_special][normalized]
  absl::flat_hash_map<int32_t, std::vector<int32_t>> split_ids_;  // token to the tokens of its two parts
  SpecialIds special_ids_;
  std::string fingerprint_;
  std::unique_ptr<ScratchPool> pool_;
};

}  // namespace shoestring
