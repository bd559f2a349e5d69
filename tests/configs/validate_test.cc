// Tests of the validator: every rule has a config that breaks it, every bound of the schema is enforced.
#include "configs/validate.h"

#include <cstdlib>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "configs/field_rules.h"
#include "configs/schema/options.pb.h"
#include "configs/walk.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "tests/configs/testing.h"
#include "tests/configs/validate_cases.h"

namespace shoestring::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::FieldOptions;

// Whether the config, broken by the overrides, has a problem of this field whose text contains `part`.
::testing::AssertionResult Finds(const std::string& recipe, const std::vector<std::string>& sets,
                                 const std::string& field, const std::string& part) {
  const LoadedConfig loaded = LoadRecipe(recipe, sets);
  std::string all;
  for (const Problem& problem : FindProblems(loaded.config, loaded.locations)) {
    if (problem.field == field && absl::StrContains(problem.ToString(), part)) return ::testing::AssertionSuccess();
    all += problem.ToString() + "\n";
  }
  return ::testing::AssertionFailure() << "no problem of " << field << " with \"" << part << "\" in:\n" << all;
}

class InvalidTest : public ::testing::TestWithParam<InvalidCase> {};

TEST_P(InvalidTest, IsFound) {
  EXPECT_TRUE(Finds(GetParam().recipe, GetParam().sets, GetParam().field, GetParam().problem));
}

INSTANTIATE_TEST_SUITE_P(Rules, InvalidTest, ::testing::ValuesIn(InvalidCases()),
                         [](const auto& info) { return info.param.name; });

// Every field that must be set, found in a config that says them all, is missed when it is taken out.
TEST(SchemaTest, EveryFieldThatMustBeSetIsMissed) {
  std::set<std::string> paths;
  Walk(LoadRecipe("deepseek_v3_671b").config, [&](const FieldValue& value) {
    const std::string list = value.path.substr(0, value.path.size() - (value.index < 0 ? 0 : 3));  // without "[0]"
    if (value.field.options().GetExtension(must_be_set) && value.index < 10) paths.insert(list);
    return true;
  });
  EXPECT_GE(paths.size(), 100u);
  for (const std::string& path : paths) {
    EXPECT_TRUE(Finds("deepseek_v3_671b", {path + "="}, path, "is not set")) << path;
  }
}

// The bounds that the schema sets, each as the words of BoundsText and its number.
std::vector<std::pair<std::string, double>> Bounds(const FieldOptions& options) {
  std::vector<std::pair<std::string, double>> bounds;
  if (options.HasExtension(min)) bounds.emplace_back("at least ", options.GetExtension(min));
  if (options.HasExtension(above)) bounds.emplace_back("above ", options.GetExtension(above));
  if (options.HasExtension(max)) bounds.emplace_back("at most ", options.GetExtension(max));
  if (options.HasExtension(below)) bounds.emplace_back("below ", options.GetExtension(below));
  return bounds;
}

TEST(SchemaTest, EveryBoundIsSaidInAllItsDigits) {
  int said = 0;
  Walk(LoadRecipe("deepseek_v3_671b").config, [&](const FieldValue& value) {
    const std::string text = BoundsText(value.field.options());
    for (const auto& [words, bound] : Bounds(value.field.options())) {
      ++said;
      const size_t at = text.find(words);
      EXPECT_NE(at, std::string::npos) << value.path << ": " << text;
      if (at == std::string::npos) continue;
      EXPECT_EQ(std::strtod(text.c_str() + at + words.size(), nullptr), bound) << value.path << ": " << text;
      EXPECT_EQ(text.find("e+"), std::string::npos) << value.path << ": " << text;
    }
    return true;
  });
  EXPECT_GE(said, 200);
}

std::vector<std::string> ValuesOutside(const FieldDescriptor& field) {
  const FieldOptions& options = field.options();
  const bool whole = field.cpp_type() != FieldDescriptor::CPPTYPE_DOUBLE;
  const auto text = [&](double v) { return whole ? absl::StrCat(static_cast<int64_t>(v)) : absl::StrCat(v); };
  std::vector<std::string> values;
  if (options.HasExtension(min)) values.push_back(text(options.GetExtension(min) - 1));
  if (options.HasExtension(max)) values.push_back(text(options.GetExtension(max) * 1.01 + 1));
  if (options.HasExtension(above)) values.push_back(text(options.GetExtension(above)));
  if (options.HasExtension(below)) values.push_back(text(options.GetExtension(below)));
  if (!whole) values.insert(values.end(), {"nan", "inf"});
  return values;
}

TEST(SchemaTest, EveryBoundIsEnforced) {
  int bounds = 0;
  for (const std::string recipe : {"deepseek_v3_671b", "v2_lite_16b", "tiny_cpu"}) {
    Walk(LoadRecipe(recipe).config, [&](const FieldValue& value) {
      if (value.field.message_type() != nullptr) return true;
      for (const std::string& outside : ValuesOutside(value.field)) {
        ++bounds;
        EXPECT_TRUE(Finds(recipe, {value.path + "=" + outside}, value.path, "must be")) << value.path << "=" << outside;
      }
      return true;
    });
  }
  EXPECT_GE(bounds, 200);
}

TEST(ValidateTest, EverythingAbsentIsReportedWithoutACrash) {
  const std::vector<Problem> problems = FindProblems(RunConfig());
  std::vector<std::string> fields;
  for (const Problem& problem : problems) fields.push_back(problem.field);
  EXPECT_THAT(fields, ::testing::ElementsAre("model", "precision", "train", "data"));
}

TEST(ValidateTest, EmptySectionsAreReportedWithoutACrash) {
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(
      "model { moe {} attention {} yarn {} } precision { fp8 {} } data { source {} }\n"
      "train { phase { batch { ramp {} } learning_rate {} yarn {} layout { dualpipe {} } } ema {} }",
      "x");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_GE(FindProblems(loaded->config, loaded->locations).size(), 60u);
}

TEST(ValidateTest, ZeroAndNegativeNumbersAreReportedWithoutACrash) {
  const RunConfig config = LoadRecipe("deepseek_v3_671b").config;
  std::vector<std::string> paths;
  Walk(config, [&](const FieldValue& value) {
    const bool whole = value.field.cpp_type() == FieldDescriptor::CPPTYPE_INT32 ||
                       value.field.cpp_type() == FieldDescriptor::CPPTYPE_INT64;
    if (whole) paths.push_back(value.path);
    return true;
  });
  ASSERT_GE(paths.size(), 60u);
  for (const std::string value : {"0", "-1", "-2147483648", "2147483647"}) {
    std::vector<std::string> all;
    for (const std::string& path : paths) {
      all.push_back(path + "=" + value);
      FindProblems(LoadRecipe("deepseek_v3_671b", {all.back()}).config);
    }
    EXPECT_FALSE(FindProblems(LoadRecipe("deepseek_v3_671b", all).config).empty());
  }
}

TEST(ValidateTest, ProblemsNameThePlaceAndTheHint) {
  const absl::StatusOr<LoadedConfig> loaded =
      ParseConfig("model {\n  attention {\n    qk_rope_head_dim: 15\n  }\n}\n", "my.textproto", {"model.bos_id=-3"});
  ASSERT_TRUE(loaded.ok());
  const std::vector<std::string> lines = Lines(Validate(loaded->config, loaded->locations));
  EXPECT_THAT(lines, ::testing::IsSupersetOf(std::vector<std::string>{
                         "my.textproto:3:5: model.attention.qk_rope_head_dim: 15 is odd; RoPE turns pairs of channels",
                         "--set model.bos_id: model.bos_id: is -3; must be at least 0",
                         "my.textproto:2:3: model.attention.v_head_dim: is not set; it changes what is computed and "
                         "has no default: say it",
                         "my.textproto: data: is not set; it changes what is computed and has no default: say it"}));
}

TEST(ValidateTest, SharedLayoutProblemsAreSaidOnce) {
  const LoadedConfig loaded = LoadRecipe("deepseek_v3_671b", {"layout.stages=15"});
  int found = 0;
  for (const Problem& problem : FindProblems(loaded.config)) found += problem.field == "layout.stages";
  EXPECT_EQ(found, 1);
}

// Each is compared with those before it by a look-up: a pass over all of them for each would outlast the test's limit.
TEST(ValidateTest, TimeGrowsWithTheNumberOfProblems) {
  std::string text = "data {\n";
  for (int i = 0; i < 100'000; ++i) text += "source{}\n";
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(text + "}", "x");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_GE(FindProblems(loaded->config, loaded->locations).size(), 200'000);
}

TEST(ValidateTest, FastSumsAskNothingOfExpertLanes) {
  const std::vector<std::string> sets = {"layout.data_ranks=16", "train.expert_lanes=4", "layout.expert_ranks=2",
                                         "train.reduction=FAST"};
  const LoadedConfig loaded = LoadRecipe("thin_16layer", sets);
  EXPECT_TRUE(Validate(loaded.config, loaded.locations).ok()) << Validate(loaded.config, loaded.locations);
}

// Layouts that the rules must let through.
class LegalTest : public ::testing::TestWithParam<std::vector<std::string>> {};

TEST_P(LegalTest, HasNoProblem) {
  const LoadedConfig loaded = LoadRecipe("thin_16layer", GetParam());
  EXPECT_TRUE(Validate(loaded.config, loaded.locations).ok()) << Validate(loaded.config, loaded.locations);
}

using Sets = std::vector<std::string>;
INSTANTIATE_TEST_SUITE_P(
    Layouts, LegalTest,
    ::testing::Values(
        Sets{"layout.gpipe={}"}, Sets{"layout.zb_h1={}"}, Sets{"layout.zb_v={}", "layout.stages=8"},
        Sets{"layout.interleaved.chunks=4", "layout.stages=16"},
        Sets{"layout.interleaved.chunks=4", "layout.stages=16", "layout.data_ranks=4",
             "train.phase[0].batch={ramp {from_sequences: 32 to_sequences: 64 over_tokens: 100}}"},
        Sets{"layout.dualpipe={}", "layout.data_ranks=2", "layout.expert_ranks=2"},
        Sets{"layout.dualpipe_v={}", "layout.stages=8"},
        Sets{"layout.dualpipe={}", "train.lanes=4", "train.phase[0].batch.sequences=4"},
        Sets{"layout.dualpipe_v={}", "layout.stages=8", "train.lanes=4", "train.phase[0].batch.sequences=4"},
        Sets{"layout.data_ranks=16", "layout.expert_ranks=16", "train.expert_lanes=16"},
        Sets{"layout=", "model.moe=", "model.dense_layers=16", "train.bias_speed=", "train.balance_alpha="},
        Sets{"precision.mode=FP32"},
        Sets{"data.packing=BEST_FIT",
             "train.phase+={sequence_length: 64 steps: 5 micro_batch: 1 batch {sequences: 32} learning_rate {constant: "
             "1}}"}));

}  // namespace
}  // namespace shoestring::config
