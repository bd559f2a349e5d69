// Tests of canonical text, of the two hashes, and of the diff that says which of them a change touches.
#include "configs/print.h"

#include "configs/diff.h"
#include "configs/schema/options.pb.h"
#include "configs/walk.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "tests/configs/testing.h"

namespace shoestring::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::vector<std::string> DiffLines(const std::vector<std::string>& sets) {
  std::vector<std::string> lines;
  const RunConfig before = LoadRecipe("tiny_cpu").config;
  for (const Difference& difference : Diff(before, LoadRecipe("tiny_cpu", sets).config)) {
    lines.push_back(difference.ToString());
  }
  return lines;
}

struct Change {
  std::string name;
  std::string set;
  bool numerics;
};

class HashTest : public ::testing::TestWithParam<Change> {};

TEST_P(HashTest, ChangesTheRunHashAndOnlyIfItMustTheNumericsHash) {
  const RunConfig before = LoadRecipe("tiny_cpu").config;
  const RunConfig after = LoadRecipe("tiny_cpu", {GetParam().set}).config;
  EXPECT_NE(RunHash(before), RunHash(after));
  EXPECT_EQ(NumericsHash(before) != NumericsHash(after), GetParam().numerics);
  const std::vector<Difference> differences = Diff(before, after);
  ASSERT_FALSE(differences.empty());
  for (const Difference& difference : differences) EXPECT_EQ(difference.numerics, GetParam().numerics);
}

INSTANTIATE_TEST_SUITE_P(
    Changes, HashTest,
    ::testing::Values(
        Change{"seed", "train.seed=2", true}, Change{"heads", "model.heads=8", true},
        Change{"gate", "model.moe.gate=SOFTMAX", true}, Change{"mode", "precision.mode=FP32", true},
        Change{"lanes", "train.lanes=2", true}, Change{"expert_lanes", "train.expert_lanes=2", true},
        Change{"reduction", "train.reduction=FAST", true}, Change{"micro_batch", "train.phase[0].micro_batch=4", true},
        Change{"rate", "train.phase[0].learning_rate[0].linear.to=0.1", true},
        Change{"duration", "train.phase[0].steps=601", true}, Change{"weight", "data.source[0].weight=2", true},
        Change{"other_data", "data.source[0].prefix=data/other", true},
        Change{"other_tokenizer", "data.tokenizer=data/other.json", true},
        Change{"moved_data", "data.source[0].prefix=/elsewhere/train", false},
        Change{"moved_tokenizer", "data.tokenizer=tokenizer.json", false},
        Change{"validation_data", "data.validation_prefix=data/other", false}, Change{"name", "name=other", false},
        Change{"phase_name", "train.phase[0].name=other", false}, Change{"recompute", "recompute.norms=true", false},
        Change{"layout", "layout.data_ranks=2", false}, Change{"schedule", "layout.gpipe={}", false},
        Change{"threads", "layout.threads_per_rank=2", false},
        Change{"phase_layout", "train.phase[0].layout.data_ranks=2", false},
        Change{"checkpoint", "checkpoint.keep=7", false}, Change{"log", "train.log_interval_steps=5", false},
        Change{"validation", "train.validation.sequences=5", false}),
    [](const auto& info) { return info.param.name; });

TEST(PrintTest, SayingADefaultChangesNothing) {
  const RunConfig before = LoadRecipe("tiny_cpu").config;
  const RunConfig after = LoadRecipe("tiny_cpu", {"layout.pipeline_ranks=1", "layout.one_f_one_b={}", "recompute={}",
                                                  "train.on_non_finite=STOP", "layout.exchange.buffer_factor=2"})
                              .config;
  EXPECT_NE(CanonicalText(before), CanonicalText(after));
  EXPECT_EQ(NumericsHash(before), NumericsHash(after));
  EXPECT_EQ(RunHash(before), RunHash(after));
  EXPECT_THAT(Diff(before, after), ::testing::IsEmpty());
}

TEST(PrintTest, OrderOfTheFileChangesNothing) {
  const absl::StatusOr<LoadedConfig> a = ParseConfig("name: \"x\" model { layers: 4 heads: 2 }", "a");
  const absl::StatusOr<LoadedConfig> b = ParseConfig("model { heads: 0x2 layers: 4 } # why\nname: 'x'", "b");
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(CanonicalText(a->config), CanonicalText(b->config));
  EXPECT_EQ(RunHash(a->config), RunHash(b->config));
}

TEST(PrintTest, CanonicalTextHasTheEditorsHeader) {
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig("model { norm_eps: 1e-6 }", "x");
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(CanonicalText(loaded->config),
            "# proto-file: configs/schema/run.proto\n# proto-message: shoestring.config.RunConfig\n\n"
            "model {\n  norm_eps: 1e-06\n}\n");
}

TEST(PrintTest, FillDefaultsSaysThemAll) {
  RunConfig config = LoadRecipe("deepseek_v3_671b").config;
  FillDefaults(config);
  EXPECT_TRUE(config.layout().exchange().has_buffer_factor());
  EXPECT_TRUE(config.layout().has_threads_per_rank());
  EXPECT_TRUE(config.train().has_on_non_finite());
  EXPECT_TRUE(config.layout().has_dualpipe()) << "a schedule that is said stays";
  EXPECT_FALSE(config.train().phase(2).layout().has_pipeline_ranks()) << "or it would replace the run's";
}

TEST(PrintTest, HashesAreSha256InHex) {
  EXPECT_THAT(NumericsHash(RunConfig()), ::testing::MatchesRegex("[0-9a-f]+"));
  EXPECT_EQ(NumericsHash(RunConfig()).size(), 64u);
  EXPECT_NE(NumericsHash(RunConfig()), RunHash(RunConfig()));
}

// SHA-256 of "numerics\n", from sha256sum: the hash is of the text and of nothing else.
TEST(PrintTest, NumericsHashIsOfTheDocumentedText) {
  EXPECT_EQ(NumericsHash(RunConfig()), "3f6a83046918fe62a8f323682783c0b7f622d40fdaeb2c2bab68e6ad0057eb22");
}

TEST(PrintTest, NumericsOnlyHoldsNoOperationalField) {
  RunConfig config = LoadRecipe("deepseek_v3_671b").config;
  FillDefaults(config);
  int fields = 0;
  Walk(NumericsOnly(config), [&](const FieldValue& value) {
    EXPECT_FALSE(value.field.options().GetExtension(operational)) << value.path;
    ++fields;
    return true;
  });
  EXPECT_GE(fields, 100);
}

TEST(DiffTest, SaysBeforeAndAfterInOrder) {
  EXPECT_THAT(DiffLines({"model.moe.gate=SOFTMAX", "layout.data_ranks=2", "train.phase[0].micro_batch=8"}),
              ElementsAre("numerics  model.moe.gate: SIGMOID -> SOFTMAX",
                          "numerics  train.phase[0].micro_batch: 16 -> 8", "run only  layout.data_ranks: 1 -> 2"));
}

TEST(DiffTest, SaysWhatOnlyOneSideHas) {
  EXPECT_THAT(DiffLines({"train.ema=", "layout.gpipe={}", "train.bias_speed[0].until_tokens=5"}),
              ElementsAre("numerics  train.ema.half_life_tokens: 200000 -> (not set)",
                          "run only  layout.one_f_one_b: {} -> (not set)",
                          "numerics  train.bias_speed[0].until_tokens: (not set) -> 5",
                          "run only  layout.gpipe: (not set) -> {}"));
}

TEST(DiffTest, EqualConfigsDoNotDiffer) { EXPECT_THAT(DiffLines({}), ElementsAre()); }

}  // namespace
}  // namespace shoestring::config
