// Tests of config loading: what is refused, in which words and at which place, and how several files merge.
#include "configs/load.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/rng.h"
#include "configs/suggest.h"
#include "configs/validate.h"
#include "gmock/gmock.h"
#include "tests/configs/testing.h"

namespace shoestring::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct BadText {
  std::string name;
  std::string text;
  std::string line;  // the first line of the error begins so
};

class BadTextTest : public ::testing::TestWithParam<BadText> {};

TEST_P(BadTextTest, IsRefusedWithPlaceAndHint) {
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(GetParam().text, "x.textproto");
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(loaded.status().message()), StartsWith(GetParam().line));
}

INSTANTIATE_TEST_SUITE_P(
    Texts, BadTextTest,
    ::testing::Values(
        BadText{"misspelt", "model {\n  hiden: 5\n}\n",
                "x.textproto:2:3: hiden: ModelConfig has no such field; did you mean hidden?"},
        BadText{"swapped", "model { haeds: 5 }",
                "x.textproto:1:9: haeds: ModelConfig has no such field; did you mean heads?"},
        BadText{"misplaced", "model { lanes: 5 }",
                "x.textproto:1:9: lanes: ModelConfig has no such field; it is a field of train"},
        BadText{"misplaced_deep", "train { q_lora_rank: 5 }",
                "x.textproto:1:9: q_lora_rank: TrainConfig has no such field; it is a field of model.attention"},
        BadText{"misplaced_top", "train { checkpoint {} }",
                "x.textproto:1:9: checkpoint: TrainConfig has no such field; it is a field of the run itself"},
        BadText{"foreign", "recompute { xylophone: 5 }",
                "x.textproto:1:13: xylophone: RecomputeConfig has no such field; it has: norms, mla_up, swiglu"},
        BadText{"empty_message", "layout { gpipe { xylophone: 5 } }",
                "x.textproto:1:18: xylophone: GPipe has no such field; it has: nothing"},
        BadText{"enum", "precision { mode: BF61 }", "x.textproto:1:19: mode: unknown value BF61; did you mean BF16?"},
        BadText{"enum_far", "precision { mode: DOUBLE }",
                "x.textproto:1:19: mode: unknown value DOUBLE; one of FP32, BF16, FP8"},
        BadText{"twice", "model { heads: 1\n heads: 2 }", "x.textproto:2:2: heads: said twice; say it once"},
        BadText{"two_choices", "layout { gpipe {} zb_v {} }", "x.textproto:1:"},
        BadText{"type", "model { heads: \"four\" }", "x.textproto:1:16: Expected integer"},
        BadText{"overflow", "model { heads: 4294967296 }", "x.textproto:1:16: Integer out of range"},
        BadText{"negative_unsigned", "train { seed: -1 }", "x.textproto:1:15: Expected integer"},
        BadText{"unclosed", "model { heads: 4", "x.textproto:1:17: Expected"},
        BadText{"extra_brace", "model { } }", "x.textproto:1:11: Expected identifier"},
        BadText{"not_text", "\x01\x02\x03", "x.textproto:1:1: "},
        BadText{"json", "{ \"model\": 5 }", "x.textproto:1:1: Expected identifier"},
        BadText{"utf8", "name: \"a\"\nmodel { # \xff\n}", "x.textproto:2:11: byte 0xff is not UTF-8; save the file as"},
        BadText{"utf8_overlong", "name: \"\xc0\xaf\"", "x.textproto:1:8: byte 0xc0 is not UTF-8"},
        BadText{"utf8_surrogate", "name: \"\xed\xa0\x80\"", "x.textproto:1:8: byte 0xed is not UTF-8"},
        BadText{"utf8_cut", "name: \"\xe2\x82", "x.textproto:1:8: byte 0xe2 is not UTF-8"},
        BadText{"by_number", "2 { heads: 4 }", "x.textproto:1:1: 2: RunConfig has no such field"}),
    [](const auto& info) { return info.param.name; });

TEST(LoadTest, AcceptsUtf8InNames) {
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig("name: \"čeština 漢字 🙂\"", "x");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->config.name(), "čeština 漢字 🙂");
}

TEST(LoadTest, FindsAllUnknownFieldsAtOnce) {
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig("modle {}\ntrain {\n  sede: 1\n  lans: 2\n}\n", "x");
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(Lines(loaded.status()), ElementsAre("x:1:1: modle: RunConfig has no such field; did you mean model?",
                                                  "x:3:3: sede: TrainConfig has no such field; did you mean seed?",
                                                  "x:4:3: lans: TrainConfig has no such field; did you mean lanes?"));
}

TEST(LoadTest, RefusesDeepNesting) {
  std::string text;
  for (int i = 0; i < 200000; ++i) text += "model {";
  EXPECT_THAT(std::string(ParseConfig(text, "x").status().message()), HasSubstr("nested deeper than 32"));
  std::string unknown;
  for (int i = 0; i < 200000; ++i) unknown += "a <";
  EXPECT_THAT(std::string(ParseConfig(unknown, "x").status().message()), HasSubstr("nested deeper than 32"));
  const std::string harmless = "# " + std::string(1000, '{') + "\nname: \"" + std::string(1000, '{') + "\\\"{\"";
  EXPECT_TRUE(ParseConfig(harmless, "x").ok());
}

// Whatever a file holds, it is refused with a place or understood: never a crash.
TEST(LoadTest, DamagedTextIsRefusedWithAPlaceOrLegalText) {
  const std::string whole = ReadFile(PosixFileSystem(), RecipePath("deepseek_v3_671b")).value();
  const Rng rng(1, RngPurpose::kTest, 0);
  int refused = 0;
  for (uint64_t i = 0; i < 500; ++i) {
    std::string text = whole;
    for (uint64_t j = 0; j < 3; ++j) {
      text[rng.Below(8 * i + j, text.size())] = static_cast<char>(rng.Below(8 * i + 3 + j, 256));
    }
    if (i % 3 == 0) text.resize(rng.Below(8 * i + 7, text.size()));
    const absl::StatusOr<LoadedConfig> loaded = ParseConfig(text, "x");
    if (loaded.ok()) {
      FindProblems(loaded->config, loaded->locations);
      continue;
    }
    ++refused;
    for (const std::string& line : Lines(loaded.status())) EXPECT_THAT(line, StartsWith("x:"));
  }
  EXPECT_GE(refused, 250);
}

class FileTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = JoinPath(directory_, name);
    EXPECT_TRUE(WriteFile(fs_, path, text).ok());
    return path;
  }
  void SetUp() override {
    directory_ = absl::StrCat(::testing::TempDir(), "/load_test_", getpid());
    ASSERT_TRUE(fs_.CreateDirectories(directory_).ok());
  }
  void TearDown() override { EXPECT_TRUE(RemoveRecursively(fs_, directory_).ok()); }

  FileSystem& fs_ = PosixFileSystem();
  std::string directory_;
};

TEST_F(FileTest, NamesWhatCannotBeRead) {
  const std::string absent = JoinPath(directory_, "absent.textproto");
  const std::string large = Write("large.textproto", std::string(kMaxConfigBytes + 1, '#'));
  const std::string bad = Write("bad.textproto", "nmae: 1");
  const std::string pipe = JoinPath(directory_, "pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const absl::StatusOr<LoadedConfig> loaded = LoadConfig(fs_, {absent, directory_, large, pipe, bad}, {});
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(Lines(loaded.status()),
              ElementsAre(::testing::AllOf(StartsWith(absent + ": "), HasSubstr("No such file")),
                          directory_ + ": is a directory; name a .textproto file in it",
                          large + ": has 1048577 bytes; a config has at most 1048576",
                          ::testing::AllOf(StartsWith(pipe + ": "), HasSubstr("is not a regular file")),
                          bad + ":1:1: nmae: RunConfig has no such field; did you mean name?"));
}

TEST_F(FileTest, LaterFilesReplaceScalarsAndListsAndMergeMessages) {
  const std::string first = Write("a", R"(name: "a" model { layers: 4 heads: 2 }
      layout { layers_per_stage: [1, 2, 3] gpipe {} }
      train { phase { steps: 5 micro_batch: 1 } phase { steps: 6 } })");
  const std::string second = Write("b", R"(model { layers: 8 }
      layout { layers_per_stage: [4, 4] zb_v {} }
      train { phase { tokens: 7 } })");
  const absl::StatusOr<LoadedConfig> loaded = LoadConfig(fs_, {first, second}, {});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const RunConfig& config = loaded->config;
  EXPECT_EQ(config.name(), "a");
  EXPECT_EQ(config.model().layers(), 8);
  EXPECT_EQ(config.model().heads(), 2);
  EXPECT_THAT(config.layout().layers_per_stage(), ElementsAre(4, 4));
  EXPECT_TRUE(config.layout().has_zb_v());
  ASSERT_EQ(config.train().phase_size(), 1);
  EXPECT_EQ(config.train().phase(0).tokens(), 7);
  EXPECT_FALSE(config.train().phase(0).has_micro_batch());
}

TEST_F(FileTest, RemembersWhereEachFieldWasLastSaid) {
  const std::string first =
      Write("a", "model {\n  layers: 4\n  heads: 2\n}\ntrain {\n  phase { steps: 5 }\n  phase {}\n}\n");
  const std::string second = Write("b", "\nmodel { layers: 8 }\ntrain { phase {\n    steps: 5 } }\n");
  const absl::StatusOr<LoadedConfig> loaded = LoadConfig(fs_, {first, second}, {"model.attention.kv_lora_rank=3"});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Locations& locations = loaded->locations;
  EXPECT_EQ(locations.Find("model.layers"), second + ":2:9");
  EXPECT_EQ(locations.Find("model.heads"), first + ":3:3");
  EXPECT_EQ(locations.Find("train.phase[0].steps"), second + ":4:5");
  EXPECT_EQ(locations.Find("train.phase[0].micro_batch"), second + ":3:9") << "the message around an absent field";
  EXPECT_EQ(locations.Find("train.phase[1]"), second + ":3:9") << "the replaced list is forgotten";
  EXPECT_EQ(locations.Find("model.attention.kv_lora_rank"), "--set model.attention.kv_lora_rank");
  EXPECT_EQ(locations.Find("data"), second) << "nothing is known";
}

TEST(SuggestTest, EditDistanceCountsSwapsOnce) {
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("heads", "heads"), 0);
  EXPECT_EQ(EditDistance("haeds", "heads"), 1);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
}

TEST(SuggestTest, FarWordsAreNotSuggested) {
  EXPECT_EQ(Nearest("xylophone", {"hidden", "layers"}), "");
  EXPECT_EQ(Nearest("Hidden", {"hidden", "layers"}), "hidden");
  EXPECT_EQ(Nearest(std::string(5000, 'a'), {"hidden"}), "");
}

}  // namespace
}  // namespace shoestring::config
