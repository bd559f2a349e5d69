// Writes tokenizer.json, and hashes the meaning of a tokenizer.
#include <openssl/evp.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "data/bpe_alphabet.h"
#include "data/pre_tokenizer.h"
#include "data/tokenizer_spec.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

std::string Quote(const std::string& text) { return nlohmann::json(text).dump(); }
const char* Bool(bool value) { return value ? "true" : "false"; }

// As the file spells it: added tokens as they are, the others in the byte alphabet.
std::string Spelling(const TokenizerToken& token) { return token.added ? token.bytes : SpellBytes(token.bytes); }

std::string AddedTokens(const TokenizerSpec& spec) {
  std::vector<std::string> lines;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    const TokenizerToken& token = spec.tokens[id];
    if (!token.added) continue;
    lines.push_back(absl::StrCat("    {\"id\": ", id, ", \"content\": ", Quote(token.bytes),
                                 ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": ",
                                 Bool(token.normalized), ", \"special\": ", Bool(token.special), "}"));
  }
  return absl::StrCat("[\n", absl::StrJoin(lines, ",\n"), "\n  ]");
}

std::string PreTokenizerJson(std::vector<std::string> patterns) {
  const bool use_regex = !patterns.empty() && patterns.back() == Gpt2Pattern();
  if (use_regex) patterns.pop_back();
  std::string out = "{\n    \"type\": \"Sequence\",\n    \"pretokenizers\": [\n";
  for (const std::string& pattern : patterns) {
    absl::StrAppend(&out, "      {\"type\": \"Split\", \"pattern\": {\"Regex\": ", Quote(pattern),
                    "}, \"behavior\": \"Isolated\", \"invert\": false},\n");
  }
  absl::StrAppend(
      &out, "      {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": ",
      Bool(use_regex), "}\n    ]\n  }");
  return out;
}

std::string ModelJson(const TokenizerSpec& spec) {
  std::vector<std::string> vocab, merges;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (!spec.tokens[id].in_model) continue;
    vocab.push_back(absl::StrCat("      ", Quote(Spelling(spec.tokens[id])), ": ", id));
  }
  for (const BpeMerge& merge : spec.merges) {
    // The older spelling, which every version of `tokenizers` reads; a spelling in the byte alphabet has no space.
    merges.push_back(absl::StrCat(
        "      ", Quote(absl::StrCat(Spelling(spec.tokens[merge.left]), " ", Spelling(spec.tokens[merge.right])))));
  }
  return absl::StrCat(
      "{\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n",
      "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n",
      "    \"byte_fallback\": false,\n    \"ignore_merges\": ", Bool(spec.ignore_merges), ",\n    \"vocab\": {\n",
      absl::StrJoin(vocab, ",\n"), "\n    },\n    \"merges\": [\n", absl::StrJoin(merges, ",\n"), "\n    ]\n  }");
}

// The canonical bytes that a fingerprint hashes.
class Canonical {
 public:
  void Integer(uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) bytes_.push_back(static_cast<char>(value >> shift));
  }
  void String(absl::string_view text) {
    Integer(text.size());
    absl::StrAppend(&bytes_, text);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

std::string Sha256Hex(absl::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  CHECK_EQ(EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr), 1);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
}

}  // namespace

std::string PrintTokenizerJson(const TokenizerSpec& spec) {
  return absl::StrCat("{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": ",
                      AddedTokens(spec),
                      ",\n  \"normalizer\": null,\n  \"pre_tokenizer\": ", PreTokenizerJson(spec.patterns),
                      ",\n  \"post_processor\": null,\n",
                      "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, ",
                      "\"use_regex\": true},\n  \"model\": ", ModelJson(spec), "\n}\n");
}

std::string FingerprintTokenizer(const TokenizerSpec& spec) {
  Canonical canonical;
  canonical.String("shoestring-tokenizer-1");
  canonical.Integer(spec.patterns.size());
  for (const std::string& pattern : spec.patterns) canonical.String(pattern);
  canonical.Integer(spec.ignore_merges ? 1 : 0);
  canonical.Integer(spec.tokens.size());
  for (const TokenizerToken& token : spec.tokens) {
    canonical.Integer((token.added ? 1 : 0) + (token.special ? 2 : 0) + (token.normalized ? 4 : 0));
    canonical.String(token.bytes);
  }
  canonical.Integer(spec.merges.size());
  for (const BpeMerge& merge : spec.merges) {
    canonical.Integer(merge.left);
    canonical.Integer(merge.right);
  }
  return Sha256Hex(canonical.bytes());
}

}  // namespace shoestring
