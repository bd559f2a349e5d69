// A small tokenizer for tests, as plain data and as the JSON that tests damage.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/check.h"
#include "data/bpe_alphabet.h"
#include "data/pre_tokenizer.h"
#include "data/tokenizer.h"
#include "data/tokenizer_spec.h"

namespace shoestring {

// The special tokens (0 ... 5), the bytes (6 ... 261), and one token a merge ("ab", then "abc" from "ab" and "c", ...).
inline TokenizerSpec SmallSpec(const std::vector<std::pair<std::string, std::string>>& merges) {
  TokenizerSpec spec;
  spec.patterns = DeepSeekV3Patterns();
  std::map<std::string, int32_t> ids;
  for (const std::string& token : DeepSeekV3SpecialTokens()) {
    spec.tokens.push_back({.bytes = token, .added = true, .special = true});
  }
  const auto add = [&](const std::string& bytes) {
    const auto [place, is_new] = ids.emplace(bytes, static_cast<int32_t>(spec.tokens.size()));
    if (is_new) spec.tokens.push_back({.bytes = bytes});
    return place->second;
  };
  for (const uint8_t byte : BytesInAlphabetOrder()) add(std::string(1, static_cast<char>(byte)));
  for (const auto& [left, right] : merges) {
    CHECK_EQ(ids.count(left), size_t{1});
    CHECK_EQ(ids.count(right), size_t{1});
    spec.merges.push_back({ids[left], ids[right], add(left + right)});
  }
  return spec;
}

inline Tokenizer MakeTokenizer(TokenizerSpec spec) {
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Create(std::move(spec));
  if (!tokenizer.ok()) internal::CheckFailed(__FILE__, __LINE__, std::string(tokenizer.status().message()));
  return *std::move(tokenizer);
}

}  // namespace shoestring
