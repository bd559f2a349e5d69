// Tests that every recipe parses and is legal, and that the large ones say the numbers of their reports.
#include <algorithm>

#include "configs/print.h"
#include "configs/resolve.h"
#include "configs/validate.h"
#include "gmock/gmock.h"
#include "tests/configs/testing.h"

namespace shoestring::config {
namespace {

std::vector<std::string> RecipeNames() {
  std::vector<std::string> names = PosixFileSystem().List("configs/recipes").value_or(std::vector<std::string>());
  for (std::string& name : names) name = name.substr(0, name.find('.'));
  return names;
}

TEST(RecipesTest, ThePromisedOnesAreThere) {
  EXPECT_THAT(RecipeNames(), ::testing::IsSupersetOf(
                                 std::vector<std::string>{"tiny_cpu", "thin_16layer", "one_layer_671b", "small_1gpu",
                                                          "v3_step_1gpu", "v2_lite_16b", "deepseek_v3_671b"}));
}

TEST(RecipesTest, AllAreLegalAndSurvivePrinting) {
  for (const std::string& name : RecipeNames()) {
    const LoadedConfig loaded = LoadRecipe(name);
    EXPECT_TRUE(Validate(loaded.config, loaded.locations).ok()) << Validate(loaded.config, loaded.locations);
    EXPECT_EQ(loaded.config.name(), name);
    const absl::StatusOr<LoadedConfig> again = ParseConfig(CanonicalText(loaded.config), "printed");
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(CanonicalText(again->config), CanonicalText(loaded.config));
    EXPECT_EQ(RunHash(again->config), RunHash(loaded.config));
  }
}

// Main model, from the shapes; recipe of the count: V3 report, section 4.2, and the released configuration.
int64_t MainParameters(const ModelConfig& m) {
  const AttentionConfig& a = m.attention();
  const int64_t d = m.hidden();
  const int64_t heads = m.heads();
  const int64_t queries = heads * (a.qk_nope_head_dim() + a.qk_rope_head_dim());
  const int64_t q = a.q_lora_rank() > 0 ? a.q_lora_rank() * (d + queries + 1) : d * queries;
  const int64_t kv = d * (a.kv_lora_rank() + a.qk_rope_head_dim()) + a.kv_lora_rank() +
                     a.kv_lora_rank() * heads * (a.qk_nope_head_dim() + a.v_head_dim());
  const int64_t attention = q + kv + heads * a.v_head_dim() * d;
  const MoeConfig& moe = m.moe();
  const int64_t bias = moe.gate() == MoeConfig::SIGMOID ? moe.routed_experts() : 0;
  const int64_t experts =
      3 * d * moe.expert_ffn() * (moe.routed_experts() + moe.shared_experts()) + moe.routed_experts() * d + bias;
  return 2 * m.vocab_size() * d + d + m.layers() * (attention + 2 * d) + m.dense_layers() * 3 * d * m.dense_ffn() +
         (m.layers() - m.dense_layers()) * experts;
}

TEST(RecipesTest, ParameterCountsAreThePublishedOnes) {
  EXPECT_EQ(MainParameters(LoadRecipe("deepseek_v3_671b").config.model()), 671'026'419'200);
  EXPECT_NEAR(static_cast<double>(MainParameters(LoadRecipe("v2_lite_16b").config.model())), 15.706e9, 0.0005e9);
}

TEST(RecipesTest, DeepSeekV3IsLaidOutAsReported) {
  const RunConfig config = LoadRecipe("deepseek_v3_671b").config;
  EXPECT_EQ(WorldSize(config.layout()), 2048);
  EXPECT_EQ(config.layout().pipeline_ranks(), 16);
  EXPECT_EQ(config.layout().expert_ranks(), 64);
  EXPECT_EQ(Directions(config.layout()), 2);
  EXPECT_EQ(WorldSize(ResolvePhase(config, 2).layout), 2048);
  EXPECT_EQ(ResolvePhase(config, 2).layout.layers_per_stage_size(), 16) << "what a phase leaves out is the run's";
}

TEST(RecipesTest, DeepSeekV3StepsAreTheReportsTokens) {
  const RunConfig config = LoadRecipe("deepseek_v3_671b").config;
  int64_t consumed = 0;
  int64_t steps_of_ramp = 0;
  int64_t final_batch = 0;
  for (int i = 0; i < 2; ++i) {
    const PhaseSettings settings = ResolvePhase(config, i);
    for (int64_t tokens = 0; tokens < settings.phase->tokens();) {
      final_batch = BatchSequences(settings, tokens) * settings.phase->sequence_length();
      tokens += final_batch;
      consumed += final_batch;
      steps_of_ramp += consumed < 469'000'000'000;
    }
  }
  EXPECT_NEAR(static_cast<double>(consumed), 14.8e12, 2 * 62'914'560.0) << "each phase ends with a whole step";
  EXPECT_EQ(final_batch, 62'914'560);
  EXPECT_NEAR(static_cast<double>(steps_of_ramp), 14'997, 0.03 * 14'997) << "rounding down to whole lanes costs steps";
}

// The two phases that share the ramp continue one another, in tokens and in batch.
TEST(RecipesTest, DeepSeekV3BoundariesAreTheReports) {
  const RunConfig config = LoadRecipe("deepseek_v3_671b").config;
  const Phase& first = config.train().phase(0);
  const Phase& second = config.train().phase(1);
  EXPECT_EQ(first.tokens() + second.tokens(), 14'800'000'000'000);
  EXPECT_EQ(first.batch().ramp().over_tokens() + second.batch().ramp().over_tokens(), 469'000'000'000);
  EXPECT_EQ(first.batch().ramp().to_sequences(), second.batch().ramp().from_sequences());
  EXPECT_EQ(first.tokens() + second.learning_rate(0).until_tokens(), 10'000'000'000'000);
  EXPECT_EQ(first.tokens() + second.learning_rate(1).until_tokens(), 14'300'000'000'000);
  EXPECT_EQ(first.tokens() + second.learning_rate(2).until_tokens(), 14'633'000'000'000);
}

}  // namespace
}  // namespace shoestring::config
