// Reads tokenizer.json: what it understands, wholly; what it does not, it refuses by name.
#include <array>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strict_json.h"
#include "data/bpe_alphabet.h"
#include "data/pre_tokenizer.h"
#include "data/tokenizer_json_object.h"
#include "data/tokenizer_spec.h"

namespace shoestring {
namespace {

using nlohmann::json;

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool normalized = false;
};

using TokenIds = absl::flat_hash_map<std::string, int32_t>;

absl::StatusOr<AddedToken> ReadAddedToken(const json& value, const std::string& path) {
  ASSIGN_OR_RETURN(const JsonObject object, JsonObject::At(value, path));
  RETURN_IF_ERROR(object.AllowOnly({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}));
  for (const char* key : {"single_word", "lstrip", "rstrip"}) RETURN_IF_ERROR(object.MustBe(key, false, false));
  AddedToken token;
  ASSIGN_OR_RETURN(token.id, object.Id("id"));
  ASSIGN_OR_RETURN(token.content, object.String("content"));
  ASSIGN_OR_RETURN(token.special, object.Bool("special", false));
  ASSIGN_OR_RETURN(token.normalized, object.Bool("normalized", !token.special));
  if (token.content.empty()) return object.Error("content", "is empty");
  return token;
}

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const JsonObject& file) {
  std::vector<AddedToken> result;
  if (file.Find("added_tokens") == nullptr) return result;
  ASSIGN_OR_RETURN(const json* list, file.List("added_tokens"));
  absl::flat_hash_set<std::string> contents;
  absl::flat_hash_set<int32_t> ids;
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string path = absl::StrCat("added_tokens[", i, "]");
    ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken((*list)[i], path));
    if (!contents.insert(token.content).second) {
      return absl::InvalidArgumentError(absl::StrCat(path, ".content: ", Excerpt(token.content), " is listed twice"));
    }
    if (!ids.insert(token.id).second) {
      return absl::InvalidArgumentError(absl::StrCat(path, ".id: ", token.id, " is listed twice"));
    }
    result.push_back(std::move(token));
  }
  return result;
}

absl::Status CheckNormalizer(const JsonObject& file) {
  const json* value = file.Find("normalizer");
  if (value == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const JsonObject object, JsonObject::At(*value, "normalizer"));
  ASSIGN_OR_RETURN(const std::string type, object.String("type"));
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const json* list, object.List("normalizers"));
    if (list->empty()) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("normalizer: ", Excerpt(*value), " is not supported"));
}

// The pattern of a Split.
absl::StatusOr<std::string> ReadSplit(const JsonObject& split) {
  RETURN_IF_ERROR(split.AllowOnly({"type", "pattern", "behavior", "invert"}));
  ASSIGN_OR_RETURN(const std::string behavior, split.String("behavior"));
  if (behavior != "Isolated")
    return split.Error("behavior", absl::StrCat("only \"Isolated\" is supported, is \"", behavior, "\""));
  RETURN_IF_ERROR(split.MustBe("invert", false, false));
  ASSIGN_OR_RETURN(const JsonObject pattern, split.Object("pattern"));
  RETURN_IF_ERROR(pattern.AllowOnly({"Regex"}));
  return pattern.String("Regex");
}

// Appends the pattern that ByteLevel applies, if it does.
absl::Status ReadByteLevel(const JsonObject& byte_level, std::vector<std::string>* patterns) {
  RETURN_IF_ERROR(byte_level.AllowOnly({"type", "add_prefix_space", "trim_offsets", "use_regex"}));
  RETURN_IF_ERROR(byte_level.MustBe("add_prefix_space", false, true));
  ASSIGN_OR_RETURN(const bool use_regex, byte_level.Bool("use_regex", true));
  if (use_regex) patterns->push_back(Gpt2Pattern());
  return absl::OkStatus();
}

// One entry of a Sequence, or the pre-tokenizer itself.
absl::Status ReadPreTokenizerStep(const JsonObject& step, bool is_last, std::vector<std::string>* patterns) {
  ASSIGN_OR_RETURN(const std::string type, step.String("type"));
  if (type == "ByteLevel") {
    return is_last ? ReadByteLevel(step, patterns) : step.Error("type", "\"ByteLevel\" must come last");
  }
  if (type != "Split") return step.Error("type", absl::StrCat("\"", type, "\" is not supported"));
  if (is_last) return step.Error("type", "the last pre-tokenizer must be \"ByteLevel\", is \"Split\"");
  ASSIGN_OR_RETURN(std::string pattern, ReadSplit(step));
  patterns->push_back(std::move(pattern));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ReadPreTokenizer(const JsonObject& file) {
  std::vector<std::string> patterns;
  ASSIGN_OR_RETURN(const JsonObject object, file.Object("pre_tokenizer"));
  ASSIGN_OR_RETURN(const std::string type, object.String("type"));
  if (type != "Sequence") {
    RETURN_IF_ERROR(ReadPreTokenizerStep(object, /*is_last=*/true, &patterns));
    return patterns;
  }
  RETURN_IF_ERROR(object.AllowOnly({"type", "pretokenizers"}));
  ASSIGN_OR_RETURN(const json* list, object.List("pretokenizers"));
  if (list->empty()) return object.Error("pretokenizers", "is empty; a byte-level tokenizer ends in \"ByteLevel\"");
  for (size_t i = 0; i < list->size(); ++i) {
    ASSIGN_OR_RETURN(const JsonObject step,
                     JsonObject::At((*list)[i], absl::StrCat("pre_tokenizer.pretokenizers[", i, "]")));
    RETURN_IF_ERROR(ReadPreTokenizerStep(step, i + 1 == list->size(), &patterns));
  }
  return patterns;
}

// `key` must be null (if `optional`) or an object of type ByteLevel, whose other fields never change ids.
absl::Status CheckByteLevel(const JsonObject& file, absl::string_view key, bool optional) {
  if (optional && file.Find(key) == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const JsonObject object, file.Object(key));
  ASSIGN_OR_RETURN(const std::string type, object.String("type"));
  if (type != "ByteLevel")
    return object.Error("type", absl::StrCat("only \"ByteLevel\" is supported, is \"", type, "\""));
  return object.AllowOnly({"type", "add_prefix_space", "trim_offsets", "use_regex"});
}

absl::Status CheckModelOptions(const JsonObject& model) {
  ASSIGN_OR_RETURN(const std::string type, model.String("type"));
  if (type != "BPE") return model.Error("type", absl::StrCat("only \"BPE\" is supported, is \"", type, "\""));
  RETURN_IF_ERROR(model.AllowOnly({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                                   "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"}));
  RETURN_IF_ERROR(model.MustBeNull("dropout"));
  RETURN_IF_ERROR(model.MustBeNull("unk_token"));
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json* value = model.Find(key);
    if (value != nullptr && *value != "") return model.Error(key, "not supported, must be null or \"\"");
  }
  RETURN_IF_ERROR(model.MustBe("byte_fallback", false, false));
  return model.Bool("fuse_unk", false).status();
}

// Token to id. The ids are 0 ... n-1.
absl::StatusOr<TokenIds> ReadVocab(const JsonObject& model) {
  ASSIGN_OR_RETURN(const JsonObject vocab, model.Object("vocab"));
  const size_t size = vocab.value().size();
  TokenIds ids;
  ids.reserve(size);
  std::vector<bool> taken(size, false);
  for (const auto& item : vocab.value().items()) {
    const std::string path = absl::StrCat("model.vocab[", Excerpt(item.key()), "]");
    const int32_t id = AsId(item.value());
    if (item.key().empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": the token is empty"));
    if (id < 0 || static_cast<size_t>(id) >= size) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", Excerpt(item.value()),
                                                     " is not an id of a vocabulary of ", size,
                                                     " (ids run from 0 without gaps)"));
    }
    if (taken[id]) return absl::InvalidArgumentError(absl::StrCat(path, ": the id ", id, " is taken by another token"));
    taken[id] = true;
    ids.emplace(item.key(), id);
  }
  return ids;
}

// Puts the added tokens in their places; `tokens` has room for those of the vocabulary.
absl::Status PlaceAddedTokens(const std::vector<AddedToken>& added, const TokenIds& vocab,
                              std::vector<TokenizerToken>* tokens) {
  for (size_t i = 0; i < added.size(); ++i) {
    const AddedToken& token = added[i];
    const std::string path = absl::StrCat("added_tokens[", i, "].id");
    const auto found = vocab.find(token.content);
    const bool in_model = found != vocab.end();
    // Outside the vocabulary the reference implementation numbers them in order of appearance, whatever the file says.
    const int32_t expected = in_model ? found->second : static_cast<int32_t>(tokens->size());
    if (token.id != expected) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": is ", token.id, ", must be ", expected,
                       in_model ? ", the id in model.vocab" : ", the next after model.vocab"));
    }
    const std::optional<std::string> bytes = UnspellBytes(token.content);
    if (in_model && bytes.has_value() && *bytes != token.content) {
      return absl::InvalidArgumentError(absl::StrCat("added_tokens[", i, "].content: ", Excerpt(token.content),
                                                     " reads as text and, in the byte alphabet, as other text"));
    }
    if (!in_model) tokens->emplace_back();
    (*tokens)[token.id] = {token.content, true, token.special, token.normalized, in_model};
  }
  return absl::OkStatus();
}

absl::Status PlaceVocab(const TokenIds& vocab, std::vector<TokenizerToken>* tokens) {
  for (const auto& [spelling, id] : vocab) {
    TokenizerToken& token = (*tokens)[id];
    if (token.added) continue;
    std::optional<std::string> bytes = UnspellBytes(spelling);
    if (!bytes.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat("model.vocab[", Excerpt(spelling),
                                                     "]: is neither spelled in the byte alphabet nor an added token"));
    }
    token.bytes = *std::move(bytes);
  }
  return absl::OkStatus();
}

absl::Status CheckEveryByte(const std::vector<TokenizerToken>& tokens) {
  std::array<bool, 256> seen{};
  for (const TokenizerToken& token : tokens) {
    if (token.bytes.size() == 1 && token.in_model && !token.special) seen[static_cast<uint8_t>(token.bytes[0])] = true;
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (!seen[byte]) {
      return absl::InvalidArgumentError(absl::StrCat("model.vocab: no ordinary token for the byte 0x",
                                                     absl::Hex(byte, absl::kZeroPad2), " (spelled \"",
                                                     SpellBytes(std::string(1, static_cast<char>(byte))), "\")"));
    }
  }
  return absl::OkStatus();
}

// "a b" or ["a", "b"].
std::optional<std::pair<std::string, std::string>> MergeParts(const json& value) {
  if (value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string()) {
    return std::make_pair(value[0].get<std::string>(), value[1].get<std::string>());
  }
  if (!value.is_string()) return std::nullopt;
  const std::string text = value.get<std::string>();
  const size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) return std::nullopt;
  return std::make_pair(text.substr(0, space), text.substr(space + 1));
}

absl::StatusOr<BpeMerge> ReadMerge(const json& value, const TokenIds& vocab) {
  const auto parts = MergeParts(value);
  if (!parts.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("must be [\"a\", \"b\"] or \"a b\", is ", Excerpt(value)));
  }
  std::array<int32_t, 3> ids;
  const std::array<std::string, 3> names = {parts->first, parts->second, parts->first + parts->second};
  for (size_t i = 0; i < names.size(); ++i) {
    const auto found = vocab.find(names[i]);
    if (found == vocab.end())
      return absl::InvalidArgumentError(absl::StrCat(Excerpt(names[i]), " is not in model.vocab"));
    if (!UnspellBytes(names[i]).has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(Excerpt(names[i]), " is not spelled in the byte alphabet"));
    }
    ids[i] = found->second;
  }
  return BpeMerge{ids[0], ids[1], ids[2]};
}

absl::StatusOr<std::vector<BpeMerge>> ReadMerges(const JsonObject& model, const TokenIds& vocab,
                                                 const std::vector<TokenizerToken>& tokens) {
  ASSIGN_OR_RETURN(const json* list, model.List("merges"));
  std::vector<BpeMerge> merges;
  absl::flat_hash_set<std::pair<int32_t, int32_t>> pairs;
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string path = absl::StrCat("model.merges[", i, "]");
    absl::StatusOr<BpeMerge> merge = ReadMerge((*list)[i], vocab);
    if (!merge.ok()) return WithContext(merge.status(), path);
    if (!pairs.emplace(merge->left, merge->right).second) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": the pair ", Excerpt((*list)[i]), " appears before"));
    }
    if (tokens[merge->product].special) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": would make the special token ",
                                                     Excerpt(tokens[merge->product].bytes), " from ordinary text"));
    }
    merges.push_back(*merge);
  }
  return merges;
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view text) {
  ASSIGN_OR_RETURN(const json parsed, ParseStrictJson(text));
  ASSIGN_OR_RETURN(const JsonObject file, JsonObject::At(parsed, ""));
  RETURN_IF_ERROR(file.AllowOnly({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                                  "post_processor", "decoder", "model"}));
  const json* version = file.Find("version");
  if (version != nullptr && *version != "1.0")
    return file.Error("version", absl::StrCat("must be \"1.0\", is ", Excerpt(*version)));
  RETURN_IF_ERROR(file.MustBeNull("truncation"));
  RETURN_IF_ERROR(file.MustBeNull("padding"));
  RETURN_IF_ERROR(CheckNormalizer(file));
  RETURN_IF_ERROR(CheckByteLevel(file, "post_processor", /*optional=*/true));
  RETURN_IF_ERROR(CheckByteLevel(file, "decoder", /*optional=*/false));
  ASSIGN_OR_RETURN(const JsonObject model, file.Object("model"));
  RETURN_IF_ERROR(CheckModelOptions(model));

  TokenizerSpec spec;
  ASSIGN_OR_RETURN(spec.ignore_merges, model.Bool("ignore_merges", false));
  ASSIGN_OR_RETURN(spec.patterns, ReadPreTokenizer(file));
  ASSIGN_OR_RETURN(const std::vector<AddedToken> added, ReadAddedTokens(file));
  ASSIGN_OR_RETURN(const TokenIds vocab, ReadVocab(model));
  spec.tokens.resize(vocab.size());
  RETURN_IF_ERROR(PlaceAddedTokens(added, vocab, &spec.tokens));
  RETURN_IF_ERROR(PlaceVocab(vocab, &spec.tokens));
  RETURN_IF_ERROR(CheckEveryByte(spec.tokens));
  ASSIGN_OR_RETURN(spec.merges, ReadMerges(model, vocab, spec.tokens));
  return spec;
}

}  // namespace shoestring
