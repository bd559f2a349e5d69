// What this build refuses, each with reason and remedy.
#include "trainer/support.h"

#include "base/check.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "tests/trainer/fp8_recipe.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

config::RunConfig Config(const std::string& more) {
  config::RunConfig config;
  const std::string base = R"(
    model { moe { routed_experts: 4 } } precision { mode: BF16 }
    train { lanes: 2 expert_lanes: 1 reduction: CANONICAL phase { sequence_length: 8 micro_batch: 1 } } )";
  CHECK(google::protobuf::TextFormat::ParseFromString(base, &config));
  config::RunConfig changes;
  CHECK(google::protobuf::TextFormat::ParseFromString(more, &changes));
  config.MergeFrom(changes);
  return config;
}

TEST(SupportTest, AnyLayoutOfCpuRanksRuns) {
  EXPECT_THAT(FindUnsupported(Config("")), IsEmpty());
  EXPECT_THAT(FindUnsupported(Config("layout { data_ranks: 4 zero1: true gpipe {} } train { expert_lanes: 2 }")),
              IsEmpty());
  EXPECT_THAT(FindUnsupported(Config("precision { mode: FP32 } layout { one_f_one_b {} }")), IsEmpty());
  EXPECT_EQ(CheckSupported(Config("")), absl::OkStatus());
}

TEST(SupportTest, EachRefusalNamesFieldReasonAndRemedy) {
  EXPECT_THAT(FindUnsupported(Config("layout { device: CUDA }")), IsEmpty());  // said where a GPU is opened
  EXPECT_THAT(FindUnsupported(Config("train { phase { layout { device: CUDA } } }")),
              ElementsAre(HasSubstr("layout.device: a run stays on one device; set train.phase[")));
  EXPECT_THAT(FindUnsupported(Config("train { phase { layout { data_ranks: 2 } } }")),
              ElementsAre(HasSubstr("resume it with this layout")));
}

TEST(SupportTest, TheFp8RecipeRunsButForWhatIsNamed) {
  const auto unsupported = [](const std::string& changes, const std::string& model = "") {
    config::RunConfig config = Config(model);
    *config.mutable_precision() = Fp8Precision(changes);
    return FindUnsupported(config);
  };
  EXPECT_THAT(unsupported(""), IsEmpty());
  EXPECT_THAT(unsupported("cached_linear_input: BF16 dispatch_format: E5M2 accumulation: ACCUMULATE_HOPPER"),
              IsEmpty());
  EXPECT_THAT(unsupported("combine_format: E4M3"), ElementsAre(HasSubstr("precision.fp8.combine_format=BF16")));
  EXPECT_THAT(unsupported("activation_tile { rows: 2 }"), ElementsAre(HasSubstr("activation_tile.rows=1")));
  EXPECT_THAT(unsupported("gradient_tile { rows: 128 }"), ElementsAre(HasSubstr("gradient_tile.rows=1")));
  const std::string odd = "model { heads: 3 attention { v_head_dim: 5 } dense_ffn: 7 }";
  EXPECT_THAT(unsupported("", odd), ElementsAre(HasSubstr("model.attention.v_head_dim=5 leaves an odd row")));
  EXPECT_THAT(
      unsupported("cached_attention_output: E4M3 cached_linear_input: E5M6", odd),
      ElementsAre(HasSubstr("precision.fp8.cached_linear_input: E5M6 keeps values in pairs, and model.dense_ffn")));
}

TEST(SupportTest, SizesBeyondTheKernelsAreRefused) {
  const auto model = [](const std::string& fields) { return FindUnsupported(Config("model { " + fields + " }")); };
  EXPECT_THAT(model("attention { qk_nope_head_dim: 320 qk_rope_head_dim: 64 v_head_dim: 384 }"), IsEmpty());
  EXPECT_THAT(model("attention { qk_nope_head_dim: 320 qk_rope_head_dim: 66 v_head_dim: 385 }"),
              ElementsAre("model.attention.qk_nope_head_dim: qk_nope_head_dim + qk_rope_head_dim is 386, and at most "
                          "384 can be computed here; make it smaller",
                          HasSubstr("model.attention.v_head_dim: it is 385, and at most 384 can")));
  EXPECT_THAT(model("moe { routed_experts: 4096 active_experts: 64 }"), IsEmpty());
  EXPECT_THAT(model("moe { routed_experts: 4097 active_experts: 65 }"),
              ElementsAre(HasSubstr("model.moe.routed_experts"), HasSubstr("model.moe.active_experts")));
  const std::string wide = "hidden: 65537 dense_ffn: 65538 moe { shared_experts: 3 expert_ffn: 30000 }";
  EXPECT_THAT(model(wide), IsEmpty());  // BF16 quantises nothing
  config::RunConfig fp8 = Config("model { " + wide + " }");
  *fp8.mutable_precision() = Fp8Precision("promotion_interval: 512 cached_linear_input: E4M3");
  EXPECT_THAT(
      FindUnsupported(fp8),
      ElementsAre(HasSubstr("precision.fp8.promotion_interval: it is 512, and at most 384"),
                  HasSubstr("model.hidden: a row in FP8 is 65537, and at most 65536"), HasSubstr("model.dense_ffn"),
                  HasSubstr("model.moe.shared_experts: a row in FP8, shared_experts * expert_ffn, is 90000")));
}

TEST(SupportTest, PhasesAreCheckedToo) {
  EXPECT_THAT(FindUnsupported(Config("train { phase { layout { data_ranks: 2 } } }")),
              ElementsAre(HasSubstr("train.phase[1].layout: parameters would move")));
  EXPECT_THAT(FindUnsupported(Config("train { phase { expert_lanes: 2 layout { gpipe {} } } }")), IsEmpty());
}

TEST(SupportTest, AllProblemsAreReportedAtOnce) {
  const absl::Status status =
      CheckSupported(Config("layout { device: CUDA } train { phase { layout { device: CPU data_ranks: 2 } } }"));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("layout.device"));
  EXPECT_THAT(status.message(), HasSubstr("\ntrain.phase[1].layout"));
}

}  // namespace
}  // namespace shoestring
