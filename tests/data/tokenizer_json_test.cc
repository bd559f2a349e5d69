// Tests tokenizer.json: round trip, both spellings, the fingerprint, and a table of bad files each with its message.
#include <functional>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "data/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/data/tokenizer_fixture.h"

namespace shoestring {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TokenizerSpec Spec() {
  TokenizerSpec spec = SmallSpec({{"a", "b"}, {" ", "ab"}, {"\xC3", "\xA9"}});
  spec.tokens.push_back({.bytes = "<more>", .added = true, .normalized = true, .in_model = false});
  return spec;
}

json GoodJson() { return json::parse(PrintTokenizerJson(Spec())); }

std::string Fault(const std::string& text) {
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Parse(text);
  if (tokenizer.ok()) return "accepted";
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(tokenizer.status().message());
}

TEST(TokenizerJsonTest, RoundTrip) {
  const Tokenizer tokenizer = MakeTokenizer(Spec());
  const std::string text = tokenizer.ToJson();
  const absl::StatusOr<Tokenizer> again = Tokenizer::Parse(text);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->ToJson(), text);
  EXPECT_EQ(again->Fingerprint(), tokenizer.Fingerprint());
  EXPECT_EQ(again->Encode("é ab<more>"), tokenizer.Encode("é ab<more>"));
  EXPECT_EQ(again->Encode("é ab<more>")->size(), 3u);
}

TEST(TokenizerJsonTest, Gpt2PatternBecomesUseRegex) {
  TokenizerSpec spec = Spec();
  spec.patterns = {"[0-9]", Gpt2Pattern()};
  const std::string text = PrintTokenizerJson(spec);
  EXPECT_THAT(text, HasSubstr("\"use_regex\": true}\n    ]"));
  EXPECT_EQ(ParseTokenizerJson(text)->patterns, spec.patterns);
}

TEST(TokenizerJsonTest, TheFingerprintIsOfTheMeaning) {
  const std::string fingerprint = MakeTokenizer(Spec()).Fingerprint();
  EXPECT_EQ(fingerprint.size(), 64u);
  const std::vector<std::function<void(json&)>> harmless = {
      [](json&) {},  // other white space and order of keys
      [](json& j) {
        for (json& merge : j["model"]["merges"]) {
          const std::string text = merge;
          merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
        }
      },
      [](json& j) {
        j["post_processor"] = {{"type", "ByteLevel"}, {"trim_offsets", false}};
      },
      [](json& j) {
        j["normalizer"] = {{"type", "Sequence"}, {"normalizers", json::array()}};
      },
      [](json& j) { j["model"]["fuse_unk"] = true; },
      [](json& j) { j["model"]["end_of_word_suffix"] = ""; },
      [](json& j) { j.erase("truncation"); },
      [](json& j) { j.erase("version"); },
  };
  for (const auto& change : harmless) {
    json j = GoodJson();
    change(j);
    const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Parse(j.dump());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_EQ(tokenizer->Fingerprint(), fingerprint);
  }
  const std::vector<std::function<void(json&)>> meaningful = {
      [](json& j) { j["model"]["merges"].erase(0); },
      [](json& j) { std::swap(j["model"]["merges"][0], j["model"]["merges"][2]); },
      [](json& j) { std::swap(j["model"]["vocab"]["x"], j["model"]["vocab"]["y"]); },
      [](json& j) { j["model"]["ignore_merges"] = true; },
      [](json& j) { j["pre_tokenizer"]["pretokenizers"].erase(0); },
      [](json& j) { j["pre_tokenizer"]["pretokenizers"][3]["use_regex"] = true; },
      [](json& j) { j["added_tokens"][6]["content"] = "<less>"; },
      [](json& j) { j["added_tokens"][6]["normalized"] = false; },
      [](json& j) { j["added_tokens"][6]["special"] = true; },
      [](json& j) { j["added_tokens"].erase(6); },
  };
  for (size_t i = 0; i < meaningful.size(); ++i) {
    json j = GoodJson();
    meaningful[i](j);
    const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Parse(j.dump());
    ASSERT_TRUE(tokenizer.ok()) << i << tokenizer.status();
    EXPECT_NE(tokenizer->Fingerprint(), fingerprint) << i;
  }
}

TEST(TokenizerJsonTest, LoadSaysWhichFile) {
  const std::string path = JoinPath(::testing::TempDir(), "tokenizer_json_test.json");
  ASSERT_TRUE(WriteFile(PosixFileSystem(), path, MakeTokenizer(Spec()).ToJson()).ok());
  EXPECT_EQ(Tokenizer::Load(PosixFileSystem(), path)->Fingerprint(), MakeTokenizer(Spec()).Fingerprint());
  ASSERT_TRUE(WriteFile(PosixFileSystem(), path, "{}").ok());
  EXPECT_EQ(Tokenizer::Load(PosixFileSystem(), path).status().message(), path + ": decoder: is missing");
  ASSERT_TRUE(PosixFileSystem().Truncate(path, int64_t{1} << 41).ok());
  EXPECT_THAT(std::string(Tokenizer::Load(PosixFileSystem(), path).status().message()),
              StartsWith(path + ": has 2199023255552 bytes, but must have at most 536870912; "));
  ASSERT_TRUE(PosixFileSystem().Remove(path).ok());
  EXPECT_EQ(Tokenizer::Load(PosixFileSystem(), path).status().code(), absl::StatusCode::kNotFound);
}

struct BadCase {
  std::function<void(json&)> damage;
  const char* message;  // how the error begins
};

void ExpectFaults(const std::vector<BadCase>& cases) {
  for (const BadCase& bad : cases) {
    json j = GoodJson();
    bad.damage(j);
    EXPECT_THAT(Fault(j.dump()), StartsWith(bad.message));
  }
}

TEST(TokenizerJsonTest, RefusesFieldsOfTheFile) {
  ExpectFaults({
      {[](json& j) { j = json::array(); }, "the file: must be an object, is a list"},
      {[](json& j) { j["extra"] = 1; }, "the file: unknown field \"extra\""},
      {[](json& j) { j["version"] = "2.0"; }, "version: must be \"1.0\", is \"2.0\""},
      {[](json& j) { j["truncation"] = json::object(); }, "truncation: not supported, must be null"},
      {[](json& j) { j["padding"] = true; }, "padding: not supported, must be null; is true"},
      {[](json& j) {
         j["normalizer"] = {{"type", "NFC"}};
       },
       "normalizer: \"NFC\" is not supported"},
      {[](json& j) {
         j["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}};
       },
       "normalizer: \"Sequence\" is not supported"},
      {[](json& j) {
         j["post_processor"] = {{"type", "TemplateProcessing"}};
       },
       "post_processor.type: only \"ByteLevel\" is supported, is \"TemplateProcessing\""},
      {[](json& j) { j["decoder"] = nullptr; }, "decoder: is missing"},
      {[](json& j) { j["decoder"]["type"] = "WordPiece"; }, "decoder.type: only \"ByteLevel\""},
      {[](json& j) { j["decoder"]["odd"] = 1; }, "decoder: unknown field \"odd\""},
      {[](json& j) { j.erase("model"); }, "model: is missing"},
      {[](json& j) { j["model"] = 3; }, "model: must be an object, is 3"},
  });
}

TEST(TokenizerJsonTest, RefusesPreTokenizers) {
  const char* kSecond = "/pre_tokenizer/pretokenizers/1";
  const auto at = [kSecond](json& j) -> json& { return j[json::json_pointer(kSecond)]; };
  ExpectFaults({
      {[](json& j) { j.erase("pre_tokenizer"); }, "pre_tokenizer: is missing"},
      {[](json& j) {
         j["pre_tokenizer"] = {{"type", "Whitespace"}};
       },
       "pre_tokenizer.type: \"Whitespace\" is not supported"},
      {[](json& j) { j["pre_tokenizer"]["pretokenizers"] = json::array(); }, "pre_tokenizer.pretokenizers: is empty"},
      {[](json& j) { j["pre_tokenizer"]["pretokenizers"].erase(3); },
       "pre_tokenizer.pretokenizers[2].type: the last pre-tokenizer must be \"ByteLevel\""},
      {[](json& j) { std::swap(j["pre_tokenizer"]["pretokenizers"][2], j["pre_tokenizer"]["pretokenizers"][3]); },
       "pre_tokenizer.pretokenizers[2].type: \"ByteLevel\" must come last"},
      {[](json& j) { j["pre_tokenizer"]["pretokenizers"][3]["add_prefix_space"] = true; },
       "pre_tokenizer.pretokenizers[3].add_prefix_space: only false is supported"},
      {[](json& j) { j["pre_tokenizer"]["pretokenizers"][3].erase("add_prefix_space"); },
       "pre_tokenizer.pretokenizers[3].add_prefix_space: only false is supported"},
      {[at](json& j) { at(j)["behavior"] = "Removed"; },
       "pre_tokenizer.pretokenizers[1].behavior: only \"Isolated\" is supported, is \"Removed\""},
      {[at](json& j) { at(j)["invert"] = true; }, "pre_tokenizer.pretokenizers[1].invert: only false is supported"},
      {[at](json& j) {
         at(j)["pattern"] = {{"String", " "}};
       },
       "pre_tokenizer.pretokenizers[1].pattern: unknown field \"String\""},
      {[at](json& j) { at(j)["pattern"]["Regex"] = 7; },
       "pre_tokenizer.pretokenizers[1].pattern.Regex: must be a string, is 7"},
      {[at](json& j) { at(j)["pattern"]["Regex"] = "(a"; }, "pre_tokenizer: Split 1: pattern does not compile"},
      {[at](json& j) { at(j)["pattern"]["Regex"] = "a\\w"; },
       "pre_tokenizer: Split 1: pattern byte 1: the escape '\\w'"},
      {[at](json& j) { at(j)["type"] = "Digits"; }, "pre_tokenizer.pretokenizers[1].type: \"Digits\" is not supported"},
  });
}

TEST(TokenizerJsonTest, RefusesModels) {
  ExpectFaults({
      {[](json& j) { j["model"]["type"] = "Unigram"; }, "model.type: only \"BPE\" is supported, is \"Unigram\""},
      {[](json& j) { j["model"]["dropout"] = 0.1; }, "model.dropout: not supported, must be null; is 0.1"},
      {[](json& j) { j["model"]["unk_token"] = "?"; }, "model.unk_token: not supported"},
      {[](json& j) { j["model"]["continuing_subword_prefix"] = "##"; },
       "model.continuing_subword_prefix: not supported"},
      {[](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, "model.end_of_word_suffix: not supported"},
      {[](json& j) { j["model"]["byte_fallback"] = true; }, "model.byte_fallback: only false is supported"},
      {[](json& j) { j["model"]["ignore_merges"] = "yes"; }, "model.ignore_merges: must be true or false, is \"yes\""},
      {[](json& j) { j["model"]["novel"] = 1; }, "model: unknown field \"novel\""},
      {[](json& j) { j["model"]["vocab"] = json::array(); }, "model.vocab: must be an object, is a list"},
      {[](json& j) { j["model"]["vocab"].erase("a"); }, "model.vocab["},
      {[](json& j) { j["model"]["vocab"]["a"] = -4; }, "model.vocab[\"a\"]: -4 is not an id of a vocabulary of 265"},
      {[](json& j) { j["model"]["vocab"]["a"] = 265; }, "model.vocab[\"a\"]: 265 is not an id"},
      {[](json& j) { j["model"]["vocab"]["a"] = "9"; }, "model.vocab[\"a\"]: \"9\" is not an id"},
      {[](json& j) { j["model"]["vocab"]["b"] = j["model"]["vocab"]["a"]; }, "model.vocab[\"b\"]: the id "},
      {[](json& j) { j["model"]["vocab"][""] = 265; }, "model.vocab[\"\"]: the token is empty"},
      {[](json& j) {
         j["model"]["vocab"]["a b"] = 265;
         j["added_tokens"].erase(6);
       },
       "model.vocab[\"a b\"]: is neither spelled in the byte alphabet nor an added token"},
      {[](json& j) {
         j["model"]["vocab"]["zz"] = j["model"]["vocab"]["z"];
         j["model"]["vocab"].erase("z");
       },
       "model.vocab: no ordinary token for the byte 0x7a (spelled \"z\")"},
      {[](json& j) { j["model"]["merges"] = "a b"; }, "model.merges: must be a list, is \"a b\""},
      {[](json& j) { j["model"]["merges"][1] = "Ġab"; }, "model.merges[1]: must be [\"a\", \"b\"] or \"a b\""},
      {[](json& j) { j["model"]["merges"][1] = "Ġ a b"; }, "model.merges[1]: must be [\"a\", \"b\"] or \"a b\""},
      {[](json& j) {
         j["model"]["merges"][1] = {"a", "b", "c"};
       },
       "model.merges[1]: must be [\"a\", \"b\"] or \"a b\", is a list"},
      {[](json& j) { j["model"]["merges"][1] = "ab zzz"; }, "model.merges[1]: \"zzz\" is not in model.vocab"},
      {[](json& j) { j["model"]["merges"][1] = "a c"; }, "model.merges[1]: \"ac\" is not in model.vocab"},
      {[](json& j) {
         j["model"]["merges"][1] = {"a", "b"};
       },
       "model.merges[1]: the pair a list appears before"},
      {[](json& j) { j["model"]["merges"][1] = "<｜▁pad▁｜> a"; }, "model.merges[1]: \"<｜▁pad▁｜>\" is not spelled"},
  });
}

TEST(TokenizerJsonTest, RefusesAddedTokens) {
  ExpectFaults({
      {[](json& j) { j["added_tokens"] = json::object(); }, "added_tokens: must be a list"},
      {[](json& j) { j["added_tokens"][2] = "x"; }, "added_tokens[2]: must be an object, is \"x\""},
      {[](json& j) { j["added_tokens"][2]["lstrip"] = true; }, "added_tokens[2].lstrip: only false is supported"},
      {[](json& j) { j["added_tokens"][2]["single_word"] = 1; },
       "added_tokens[2].single_word: must be true or false, is 1"},
      {[](json& j) { j["added_tokens"][2].erase("id"); }, "added_tokens[2].id: is missing"},
      {[](json& j) { j["added_tokens"][2]["id"] = 2.5; }, "added_tokens[2].id: must be an integer"},
      {[](json& j) { j["added_tokens"][2]["id"] = 3000000000; }, "added_tokens[2].id: must be an integer"},
      {[](json& j) { j["added_tokens"][2]["content"] = ""; }, "added_tokens[2].content: is empty"},
      {[](json& j) { j["added_tokens"][2]["content"] = j["added_tokens"][1]["content"]; },
       "added_tokens[2].content: \"<｜end"},
      {[](json& j) { j["added_tokens"][2]["id"] = 1; }, "added_tokens[2].id: 1 is listed twice"},
      {[](json& j) { j["added_tokens"][2]["id"] = 77; }, "added_tokens[2].id: is 77, must be 2, the id in model.vocab"},
      {[](json& j) { j["added_tokens"][6]["id"] = 300; },
       "added_tokens[6].id: is 300, must be 265, the next after model.vocab"},
      {[](json& j) {
         j["added_tokens"][6]["content"] = "Ġab";
         j["added_tokens"][6]["id"] = 263;
       },
       "added_tokens[6].content: \"Ġab\" reads as text and, in the byte alphabet, as other text"},
      {[](json& j) { j["added_tokens"].erase(2); }, "model.vocab[\"<｜▁pad▁｜>\"]: is neither spelled"},
      {[](json& j) {
         j["added_tokens"][6] = {{"id", 262}, {"content", "ab"}, {"special", true}};
       },
       "model.merges[0]: would make the special token \"ab\" from ordinary text"},
  });
}

TEST(TokenizerJsonTest, RefusesMalformedJson) {
  EXPECT_THAT(Fault("{\"version\": }"), StartsWith("parse error at line 1, column 13"));
  EXPECT_EQ(Fault("{\"a\": {\"b\": 1, \"c\": 2, \"b\": 3}}"), "the key \"b\" appears twice");
  EXPECT_EQ(Fault(std::string(64, '[') + std::string(64, ']')), "the file: must be an object, is a list");
  std::string umlauts;
  for (int i = 0; i < 60; ++i) umlauts += "ü";
  EXPECT_EQ(Fault("{\"version\": \"x" + umlauts + "\"}"),
            "version: must be \"1.0\", is \"x" + umlauts.substr(0, 78) + "...");  // 80 bytes, whole characters
  const std::string good = MakeTokenizer(Spec()).ToJson();
  EXPECT_THAT(Fault(good + std::string("\0{", 2)), HasSubstr("is zero"));
  EXPECT_THAT(Fault("\xEF\xBB\xBF" + good), StartsWith("begins with a byte-order mark"));
  for (size_t size = 0; size < good.size() - 1; size += 997)
    EXPECT_THAT(Fault(good.substr(0, size)), HasSubstr("parse error"));
}

}  // namespace
}  // namespace shoestring
