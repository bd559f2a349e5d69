// Tests of --set: every form of path and value, and what is refused.
#include "configs/override.h"

#include "gmock/gmock.h"
#include "tests/configs/testing.h"

namespace shoestring::config {
namespace {

using ::testing::ElementsAre;
using ::testing::StartsWith;

constexpr char kBase[] = R"(
name: "base"
model { layers: 4 attention { kv_lora_rank: 64 } }
layout { layers_per_stage: [1, 2, 3] gpipe {} }
data { source { prefix: "a" weight: 1 } source { prefix: "b" weight: 2 } source { prefix: "c" weight: 3 } }
)";

RunConfig Apply(const std::vector<std::string>& sets) {
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(kBase, "base", sets);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return loaded.ok() ? loaded->config : RunConfig();
}

TEST(OverrideTest, SetsScalarsOfEveryType) {
  const RunConfig config = Apply({"model.layers=7", "train.seed=18446744073709551615", "model.norm_eps=1e-6",
                                  "model.moe.renormalize=true", "precision.mode=FP32", "train.clip_norm= 1 "});
  EXPECT_EQ(config.model().layers(), 7);
  EXPECT_EQ(config.train().seed(), 18446744073709551615u);
  EXPECT_EQ(config.model().norm_eps(), 1e-6);
  EXPECT_TRUE(config.model().moe().renormalize());
  EXPECT_EQ(config.precision().mode(), PrecisionConfig::FP32);
  EXPECT_EQ(config.train().clip_norm(), 1);
}

TEST(OverrideTest, StringsNeedNoQuotes) {
  EXPECT_EQ(Apply({"name=my run"}).name(), "my run");
  EXPECT_EQ(Apply({"name=\"my run\""}).name(), "my run");
  EXPECT_EQ(Apply({"name='x'"}).name(), "x");
  EXPECT_EQ(Apply({"data.source[1].prefix=/d/a=b\\c"}).data().source(1).prefix(), "/d/a=b\\c");
}

TEST(OverrideTest, SetsElementsAndFieldsInsideThem) {
  const RunConfig config = Apply(
      {"data.source[2].weight=9", "layout.layers_per_stage[0]=5", "data.source[0]={ prefix: \"new\" weight: 4 }"});
  EXPECT_EQ(config.data().source(2).weight(), 9);
  EXPECT_THAT(config.layout().layers_per_stage(), ElementsAre(5, 2, 3));
  ASSERT_EQ(config.data().source_size(), 3);
  EXPECT_EQ(config.data().source(0).prefix(), "new");
  EXPECT_EQ(config.data().source(1).prefix(), "b");
}

TEST(OverrideTest, EqualsReplacesListsAndPlusAppends) {
  EXPECT_THAT(Apply({"layout.layers_per_stage=[8, 9]"}).layout().layers_per_stage(), ElementsAre(8, 9));
  EXPECT_THAT(Apply({"layout.layers_per_stage=8"}).layout().layers_per_stage(), ElementsAre(8));
  EXPECT_THAT(Apply({"layout.layers_per_stage=[]"}).layout().layers_per_stage(), ElementsAre());
  EXPECT_THAT(Apply({"layout.layers_per_stage+=4"}).layout().layers_per_stage(), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Apply({"layout.layers_per_stage+=[4, 5]"}).layout().layers_per_stage(), ElementsAre(1, 2, 3, 4, 5));
  const RunConfig config = Apply({"data.source+={prefix: \"d\"}", "data.source[3].weight=7"});
  ASSERT_EQ(config.data().source_size(), 4);
  EXPECT_EQ(config.data().source(3).weight(), 7);
}

TEST(OverrideTest, ReplacesMessagesWholeAndChoices) {
  const RunConfig config = Apply({"model.attention={ v_head_dim: 3 }", "layout.interleaved.chunks=2"});
  EXPECT_FALSE(config.model().attention().has_kv_lora_rank());
  EXPECT_EQ(config.model().attention().v_head_dim(), 3);
  EXPECT_TRUE(config.layout().has_interleaved());
  EXPECT_TRUE(Apply({"layout.dualpipe={}"}).layout().has_dualpipe());
}

TEST(OverrideTest, AnEmptyValueUnsets) {
  EXPECT_FALSE(Apply({"model.attention="}).model().has_attention());
  EXPECT_FALSE(Apply({"name="}).has_name());
  EXPECT_EQ(Apply({"data.source="}).data().source_size(), 0);
}

TEST(OverrideTest, LaterOnesWin) { EXPECT_EQ(Apply({"model.layers=7", "model.layers=8"}).model().layers(), 8); }

struct BadSet {
  std::string text;
  std::string line;
};

class BadSetTest : public ::testing::TestWithParam<BadSet> {};

TEST_P(BadSetTest, IsRefusedAndChangesNothing) {
  absl::StatusOr<LoadedConfig> loaded = ParseConfig(kBase, "base");
  ASSERT_TRUE(loaded.ok());
  const std::string before = loaded->config.SerializeAsString();
  std::vector<Problem> problems;
  ApplyOverride(GetParam().text, loaded->config, loaded->locations, problems);
  ASSERT_GE(problems.size(), 1u);
  EXPECT_THAT(problems[0].ToString(), StartsWith(GetParam().line));
  EXPECT_EQ(loaded->config.SerializeAsString(), before);
}

INSTANTIATE_TEST_SUITE_P(
    Sets, BadSetTest,
    ::testing::Values(
        BadSet{"model.layers", "--set: \"model.layers\" is not path=value; as in train.seed=7"},
        BadSet{"=5", "--set: \"=5\" is not path=value"}, BadSet{"", "--set: \"\" is not path=value"},
        BadSet{"model.layerz=5", "--set model.layerz: layerz: ModelConfig has no such field; did you mean layers?"},
        BadSet{"modle.layers=5", "--set modle.layers: modle: RunConfig has no such field; did you mean model?"},
        BadSet{"model..layers=5", "--set model..layers: is not a name or name[index]"},
        BadSet{"model.layers[0]=5", "--set model.layers[0]: layers[0]: is not a list; leave the index out"},
        BadSet{"model.layers.x=5", "--set model.layers.x: layers: has no fields of its own; end the path here"},
        BadSet{"data.source.weight=5", "--set data.source.weight: source: is a list; say which element: [0]"},
        BadSet{"data.source[3].weight=5", "--set data.source[3].weight: source[3]: the list has 3 elements"},
        BadSet{"data.source[-1].weight=5", "--set data.source[-1].weight: source[-1]: is not a name"},
        BadSet{"data.source[x].weight=5", "--set data.source[x].weight: source[x]: is not a name"},
        BadSet{"data.source[0.weight=5", "--set data.source[0.weight: source[0: is not a name"},
        BadSet{"data.source[0]=[]", "--set data.source[0]: one element takes one value"},
        BadSet{"model.layers+=5", "--set model.layers: += is for lists; use ="},
        BadSet{"data.source[0]+={}", "--set data.source[0]: += is for lists"},
        BadSet{"model.layers=many", "--set model.layers: Expected integer"},
        BadSet{"model.layers=3 heads: 4", "--set model.layers: \"3 heads: 4\" is not one value"},
        BadSet{"model.layers=[3, 4]", "--set model.layers: "},
        BadSet{"precision.mode=BF15", "--set precision.mode: mode: unknown value BF15; did you mean BF16?"},
        BadSet{"model.moe={ experts: 3 }", "--set model.moe: experts: MoeConfig has no such field"},
        BadSet{"name=\xff", "--set name: byte 0xff is not UTF-8"}));

TEST(OverrideTest, AllBadOnesAreReported) {
  const absl::Status status = ParseConfig(kBase, "base", {"a=1", "model.layers=9", "b=2"}).status();
  EXPECT_EQ(Lines(status).size(), 2u) << status;
}

}  // namespace
}  // namespace shoestring::config
