// Shrunk configs are right, keep their parallelism, and every stage its kinds of layers.
#include "trainer/verify/shrink.h"

#include "base/file_system.h"
#include "configs/diff.h"
#include "configs/load.h"
#include "configs/resolve.h"
#include "configs/validate.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "trainer/verify/verify.h"

namespace shoestring {
namespace {

using testing::ElementsAre;

config::RunConfig Recipe(const std::string& name, const std::vector<std::string>& set = {}) {
  const std::string path = absl::StrCat("configs/recipes/", name, ".textproto");
  absl::StatusOr<config::LoadedConfig> loaded = config::LoadConfig(PosixFileSystem(), {path}, set);
  CHECK(loaded.ok());
  return loaded->config;
}

TEST(ShrinkTest, EveryPhaseOfEveryRecipeStaysRight) {
  for (const char* name : {"deepseek_v3_671b", "one_layer_671b", "small_1gpu", "speed_512", "thin_16layer", "tiny_cpu",
                           "v2_lite_16b", "v3_step_1gpu"}) {
    const config::RunConfig config = Recipe(name);
    for (int phase = 0; phase < config.train().phase_size(); ++phase) {
      const config::RunConfig whole = OnlyPhase(config, phase);
      const config::RunConfig small = Shrink(whole);
      const absl::Status valid = config::Validate(small, config::Locations());
      EXPECT_TRUE(valid.ok()) << name << " phase " << phase << ": " << valid;
      EXPECT_LE(small.model().hidden(), 32);
      EXPECT_EQ(small.train().lanes(), whole.train().lanes());
      EXPECT_EQ(config::WorldSize(small.layout()), config::WorldSize(whole.layout()));
      EXPECT_EQ(Shrink(small).SerializeAsString(), small.SerializeAsString()) << name;
    }
  }
}

TEST(ShrinkTest, ChangesNoParallelism) {
  const config::RunConfig whole = OnlyPhase(Recipe("deepseek_v3_671b"), 1);
  const config::RunConfig small = Shrink(whole);
  for (const config::Difference& difference : config::Diff(whole, small)) {
    const bool of_model = difference.field.rfind("model.", 0) == 0;
    const bool allowed =
        difference.field == "layout.device" || difference.field.rfind("layout.layers_per_stage", 0) == 0 ||
        difference.field == "train.phase[0].sequence_length" || difference.field.rfind("train.phase[0].batch", 0) == 0;
    EXPECT_TRUE(of_model || allowed) << difference.ToString();
  }
  EXPECT_EQ(small.model().moe().routed_experts(), 64);
  EXPECT_EQ(small.model().moe().groups(), 8);
  EXPECT_EQ(small.model().moe().active_experts(), 8);
  EXPECT_EQ(small.train().phase(0).batch().sequences(), 4096);
  // Three dense layers and one with experts in the first stage, one with experts in the last.
  EXPECT_THAT(small.layout().layers_per_stage(), ElementsAre(2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1));
  EXPECT_EQ(small.model().dense_layers(), 1);
  EXPECT_EQ(small.model().layers(), 17);
}

TEST(ShrinkTest, KeepsAsManyExpertsAsTheChosenNeed) {
  config::RunConfig config = OnlyPhase(Recipe("deepseek_v3_671b"), 1);
  config.mutable_layout()->set_expert_ranks(1);
  // Eight groups with two experts, of which four groups give eight.
  EXPECT_EQ(Shrink(config).model().moe().routed_experts(), 16);
  config.mutable_model()->mutable_moe()->set_active_experts(12);
  EXPECT_EQ(Shrink(config).model().moe().routed_experts(), 24);
}

TEST(ShrinkTest, AStageOfDenseLayersKeepsOne) {
  config::RunConfig config = OnlyPhase(Recipe("deepseek_v3_671b"), 1);
  config.mutable_model()->set_dense_layers(9);
  const config::RunConfig small = Shrink(config);
  EXPECT_THAT(small.layout().layers_per_stage(), ElementsAre(1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1));
  EXPECT_EQ(small.model().dense_layers(), 3);
}

}  // namespace
}  // namespace shoestring
