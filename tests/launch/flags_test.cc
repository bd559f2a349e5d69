// Flags, verbs and exit codes, without starting a process.
#include "launch/flags.h"

#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launch/exit_codes.h"
#include "launch/generation.h"
#include "launch/verbs.h"

namespace shoestring {
namespace {

TEST(VerbsTest, EveryVerbHasAHelpWithAnExampleThatNamesIt) {
  std::set<std::string> names;
  for (const Verb& verb : AllVerbs()) {
    EXPECT_TRUE(names.insert(verb.name).second) << verb.name << " is there twice";
    const std::string help = HelpText(verb);
    EXPECT_THAT(help, testing::HasSubstr("Example:\n  shoestring " + verb.name)) << verb.name;
    EXPECT_THAT(help, testing::HasSubstr(verb.summary));
    const absl::StatusOr<Values> values = ParseFlags(verb, {"--help"});
    ASSERT_TRUE(values.ok()) << verb.name << ": " << values.status();
    EXPECT_EQ(values->count("help"), 1u);
  }
}

TEST(VerbsTest, EveryFlagOfEveryVerbIsExplained) {
  for (const Verb& verb : AllVerbs()) {
    po::options_description flags;
    verb.declare(flags);
    for (const auto& flag : flags.options()) EXPECT_FALSE(flag->description().empty()) << verb.name;
  }
}

TEST(ParseFlagsTest, NamesTheNearestFlag) {
  for (const Verb& verb : AllVerbs()) {
    if (verb.name != "generate") continue;
    const absl::Status status = ParseFlags(verb, {"--promt", "a"}).status();
    EXPECT_EQ(status.message(), "unknown flag --promt, did you mean --prompt?; see 'shoestring generate --help'");
  }
}

TEST(ExitCodesTest, FollowTheArea) {
  EXPECT_EQ(ExitCodeOf(Area::kUsage, absl::InvalidArgumentError("")), ExitCode::kUsage);
  EXPECT_EQ(ExitCodeOf(Area::kConfig, absl::InvalidArgumentError("")), ExitCode::kBadConfig);
  EXPECT_EQ(ExitCodeOf(Area::kData, absl::DataLossError("")), ExitCode::kBadData);
  EXPECT_EQ(ExitCodeOf(Area::kData, absl::NotFoundError("")), ExitCode::kInputOutput);
  EXPECT_EQ(ExitCodeOf(Area::kRun, absl::ResourceExhaustedError("")), ExitCode::kInputOutput);
  EXPECT_EQ(ExitCodeOf(Area::kRun, absl::InternalError("")), ExitCode::kInternal);
  EXPECT_EQ(ExitCodeOf(Area::kRun, absl::OkStatus()), ExitCode::kDone);
}

TEST(SampleTokenTest, FollowsTheDistribution) {
  const std::vector<float> logits = {0.0f, 1.0f, 2.0f, -30.0f};
  std::vector<int> counts(logits.size());
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) ++counts[SampleToken(logits, {.temperature = 1, .seed = 5}, i)];
  // exp(0), exp(1), exp(2) over their sum; five standard deviations are below 0.018.
  EXPECT_NEAR(counts[0] / double{kDraws}, 0.0900, 0.018);
  EXPECT_NEAR(counts[1] / double{kDraws}, 0.2447, 0.018);
  EXPECT_NEAR(counts[2] / double{kDraws}, 0.6652, 0.018);
  EXPECT_EQ(counts[3], 0);
}

TEST(SampleTokenTest, ZeroTemperatureTakesTheLikeliestAndTopKLeavesTheRest) {
  const std::vector<float> logits = {0.0f, 1.0f, 1.0f, 0.5f};
  EXPECT_EQ(SampleToken(logits, {.temperature = 0}, 0), 1);  // the first of equals
  for (int i = 0; i < 200; ++i) {
    const int32_t token = SampleToken(logits, {.temperature = 5, .top_k = 2, .seed = 1}, i);
    EXPECT_TRUE(token == 1 || token == 2);
  }
}

}  // namespace
}  // namespace shoestring
